"""Apply the degradation plans of a batch together, on the device that trains.

Each kind of step of `degrade/` has a batched version here, in a file of the same name. Its `merge` runs in a loader
process and prepares the kernels, taps and tables of several samples; the merged step then takes a few operations on the
device. `plan.py` merges complete plans. docs/degradations.md describes when to use it, docs/adr/0002 why it exists.
"""

from selfsr.degrade.batched.blur import sharpen
from selfsr.degrade.batched.plan import BatchedPlan, merge_plans

__all__ = ["BatchedPlan", "merge_plans", "sharpen"]
