"""Run selfsr as `python -m selfsr`, or in several processes as `torchrun -m selfsr train ...`."""

from selfsr.cli import main

if __name__ == "__main__":
    main()
