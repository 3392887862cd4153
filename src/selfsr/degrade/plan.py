"""A plan: the steps that one picture goes through, every random number drawn but the noise itself.

Drawing a plan touches no pixel, so what is drawn can be counted, written down and read before anything is made.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np


class Step(Protocol):
    """One operation with all its parameters; a frozen dataclass.

    Attributes:
        name: what the step is called where plans are written down.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image after the step.

        Args:
            image: float32 `[H, W, 3]`, RGB, nominally in [0, 1]; not written to.
            rng: where the noise comes from; steps without noise leave it alone.
        """
        ...


Plan = tuple[Step, ...]
_T = TypeVar("_T")


def carry_out(plan: Plan, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `image`, float32 `[H, W, 3]` in [0, 1], after all steps; clipped to [0, 1]."""
    assert image.dtype == np.float32, image.dtype
    assert image.ndim == 3, image.shape
    assert image.shape[2] == 3, image.shape
    for step in plan:
        image = step(image, rng)
    return np.clip(image, 0, 1)


def described(plan: Plan) -> list[dict[str, Any]]:
    """Return the steps as plain data, to be written as JSON."""
    return [{"step": step.name, **asdict(step)} for step in plan]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Return True with this probability."""
    return bool(rng.random() < probability)


def between(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Return a number uniform between the bounds."""
    low, high = bounds
    return float(low + (high - low) * rng.random())


def whole(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    """Return a whole number uniform between the bounds, both included."""
    return int(rng.integers(bounds[0], bounds[1] + 1))


def pick(rng: np.random.Generator, choices: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
    """Return one of the choices, by weights that sum to one, or evenly."""
    if weights is None:
        return choices[int(rng.integers(len(choices)))]
    edges = np.cumsum(weights)  # scaled by their last, so that rounding leaves nothing over
    return choices[int(np.searchsorted(edges / edges[-1], rng.random(), side="right"))]
