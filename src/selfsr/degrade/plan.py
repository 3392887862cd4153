"""Degradation plans: the steps that one image goes through, with all random numbers except for the noise itself.

Sampling a plan needs no pixels. So plans can be counted in tests, saved as JSON and shown in captions.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np


class Step(Protocol):
    """One operation with all its parameters; a frozen dataclass.

    Attributes:
        name: the step's name in saved plans.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image after the step.

        Args:
            image: float32 `[H, W, 3]`, RGB, nominally in [0, 1]; not modified.
            rng: random number generator of the noise; unused by steps without noise.
        """
        ...


DegradationPlan = tuple[Step, ...]
_T = TypeVar("_T")


def apply_plan(plan: DegradationPlan, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply all steps to an image.

    Args:
        plan: the steps.
        image: float32 `[H, W, 3]`, RGB in [0, 1].
        rng: random number generator of the noise.

    Returns:
        float32 `[h, w, 3]`, clipped to [0, 1].
    """
    assert image.dtype == np.float32, image.dtype
    assert image.ndim == 3, image.shape
    assert image.shape[2] == 3, image.shape
    for step in plan:
        image = step(image, rng)
    return np.clip(image, 0, 1)


def plan_to_json(plan: DegradationPlan) -> list[dict[str, Any]]:
    """Convert the steps to plain data that can be saved as JSON."""
    return [{"step": step.name, **asdict(step)} for step in plan]


def bernoulli(rng: np.random.Generator, probability: float) -> bool:
    """Sample True with this probability."""
    return bool(rng.random() < probability)


def uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """Sample a real number, uniform between the bounds."""
    low, high = bounds
    return float(low + (high - low) * rng.random())


def uniform_int(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    """Sample an integer, uniform between the bounds, both included."""
    return int(rng.integers(bounds[0], bounds[1] + 1))


def choice(rng: np.random.Generator, choices: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
    """Sample one of the choices: by weights that sum to one, or uniformly."""
    if weights is None:
        return choices[int(rng.integers(len(choices)))]
    edges = np.cumsum(weights)  # divided by the last one, which may not be 1 after rounding
    return choices[int(np.searchsorted(edges / edges[-1], rng.random(), side="right"))]
