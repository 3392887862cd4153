"""Time, peak memory and error of the self-similarity loss: the verb `selfsr bench`, run from a checkout.

    python bench/ops.py [--sweep] [--json results.json] [--plot cost.svg] [--device cuda]

The baseline, the published unfold formulation, is src/selfsr/bench/unfold.py.
"""

import sys

from selfsr.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench"]
    main()
