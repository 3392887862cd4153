"""The two kinds of metrics that are loaded: of an image, and of a set of images."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

# Maps (sr, hr), images [1, 3, H, W] in [0, 1], to a number.
ImageMetric = Callable[[Tensor, Tensor], float]


class SetScore(Protocol):
    """The score of one set, while its images come in."""

    def add(self, sr: Tensor, hr: Tensor) -> None:
        """Add an image and its ground truth, `[1, 3, H, W]` in [0, 1], rounded to 8 bits."""
        ...

    def compute(self) -> float:
        """Return the score of the images so far; NaN if they are too few."""
        ...


@runtime_checkable
class SetMetric(Protocol):
    """A metric that compares all outputs of a set with all ground truths, such as FID."""

    def start(self) -> SetScore:
        """Return the score of a new set, without images."""
        ...
