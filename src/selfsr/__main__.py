"""`python -m selfsr`, and so `torchrun -m selfsr train ...`."""

from selfsr.cli import main

if __name__ == "__main__":
    main()
