"""The plans of a whole batch, carried out together on the device that trains.

Each kind of step of `degrade/` has its twin here, under the same file name. A twin is made, in a process that
loads, of the steps of several samples (`merged`), which costs it the kernels, the taps and the tables; on the device it
is then a few operations for all of them. `program.py` merges whole plans, docs/degradations.md says when to use it.
"""

from selfsr.degrade.batched.blur import sharpened
from selfsr.degrade.batched.program import Program, merged

__all__ = ["Program", "merged", "sharpened"]
