"""Loss functions that a training loop adds up; each module says which paper it is from."""

from selfsr.losses.pixel import charbonnier, l1, l2

__all__ = ["charbonnier", "l1", "l2"]
