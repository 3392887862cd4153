"""Residual shifting: the diffusion process from ground truth to input, and its steps back (docs/diffusion.md).

Yue, Wang and Loy, "ResShift", NeurIPS 2023; the deterministic step is that of Wang et al., "SinSR", CVPR 2024.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from selfsr.nets.diffusion.sampled import choose_indices
from selfsr.spec import Spec

_LARGEST_STEPS = 1000


class ShiftSpec(Spec):
    """The noise schedule of residual shifting (docs/diffusion.md, eq. 5)."""

    steps: PositiveInt = Field(
        4, le=_LARGEST_STEPS, description="diffusion steps T; more cost more time per image and add detail slowly"
    )
    kappa: PositiveFloat = Field(
        1.0,
        description="noise strength: the standard deviation of the noise is kappa times sqrt(eta); 2 is published for "
        "latents of variance 1, 1 is the same ratio for pixels in [-1, 1]",
    )
    min_noise: PositiveFloat = Field(
        0.1, description="noise of the first step over kappa, at most that: sqrt(eta_1) is min(min_noise / kappa, it)"
    )
    power: PositiveFloat = Field(
        0.3, description="growth of sqrt(eta) between its ends; smaller values rise sooner (p of the paper)"
    )
    end: float = Field(0.99, gt=0, lt=1, description="sqrt(eta_T), the share of the residual in the last step")

    @model_validator(mode="after")
    def _check_ends(self) -> "ShiftSpec":
        start = min(self.min_noise / self.kappa, self.min_noise)
        if self.steps > 1 and start >= self.end:
            raise ValueError(
                f"min_noise must leave the noise room to rise to end {self.end}, got {self.min_noise} with kappa "
                f"{self.kappa}; lower it"
            )
        return self

    def build(self) -> "ShiftSchedule":
        """Return the tables of the process."""
        start = min(self.min_noise / self.kappa, self.min_noise)
        rise = np.linspace(0.0, 1.0, self.steps) ** self.power if self.steps > 1 else np.ones(1)
        sqrt_eta = start * (self.end / start) ** rise
        return ShiftSchedule(sqrt_eta, self.kappa)


@dataclass(frozen=True)
class ShiftSchedule:
    """Tables of residual shifting over the step index i = t - 1, from 0 to T - 1, in float64.

    With ground truth x0, input y brought to its size, and standard normal noise e (docs/diffusion.md, eq. 1 to 6):

        x_t = x0 + eta_t (y - x0) + kappa sqrt(eta_t) e
        q(x_s | x_t, x0) for s < t: mean (eta_s / eta_t) x_t + (1 - eta_s / eta_t) x0,
                                    variance kappa^2 (eta_s / eta_t) (eta_t - eta_s)

    For s = t - 1 this is the published posterior. Any s < t keeps the same marginals, so that fewer steps than
    trained can be taken.

    Attributes:
        sqrt_eta: sqrt(eta) by step, increasing, in (0, 1).
        kappa: noise strength.
    """

    sqrt_eta: np.ndarray
    kappa: float

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.sqrt_eta)

    @cached_property
    def eta(self) -> np.ndarray:
        """The share of the residual in x_t."""
        return self.sqrt_eta**2

    @cached_property
    def noise_std(self) -> np.ndarray:
        """Standard deviation of the noise in x_t, kappa sqrt(eta)."""
        return self.kappa * self.sqrt_eta

    @cached_property
    def snr_root(self) -> np.ndarray:
        """Root of the signal-to-noise ratio: the share of x0 over the standard deviation of the noise."""
        return (1 - self.eta) / self.noise_std

    def add_noise(self, x0: Tensor, y: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Return x_t, a sample of q(x_t | x0, y).

        Args:
            x0: ground truth `[N, C, H, W]`.
            y: input, of the shape of `x0`.
            noise: standard normal, of the shape of `x0`.
            index: the step i of each sample, int64 `[N]` in [0, T).
        """
        return x0 + self.gather(self.eta, index, x0) * (y - x0) + self.gather(self.noise_std, index, x0) * noise

    def start(self, y: Tensor, noise: Tensor) -> Tensor:
        """Return x_T for sampling: the mean of the last step is taken as y."""
        return y + float(self.noise_std[-1]) * noise

    def posterior(self, i: int, previous: int) -> tuple[float, float, float]:
        """Return the factors of x_t and x0 in the mean of q(x_s | x_t, x0), and the standard deviation.

        Args:
            i: the index of t.
            previous: the index of s, below i; -1 is the end, where x_s is x0.
        """
        if previous < 0:
            return 0.0, 1.0, 0.0
        ratio = float(self.eta[previous] / self.eta[i])
        variance = self.kappa**2 * ratio * float(self.eta[i] - self.eta[previous])
        return ratio, 1 - ratio, math.sqrt(variance)

    def deterministic(self, i: int, previous: int) -> tuple[float, float, float]:
        """Return the factors (k, m, j) of x0, x_t and y in the step without new noise (docs/diffusion.md, eq. 4).

        The step keeps the noise of x_t: x_s = x0 + eta_s (y - x0) + sqrt(eta_s / eta_t) (noise part of x_t).
        """
        if previous < 0:
            return 1.0, 0.0, 0.0
        eta_t, eta_s = float(self.eta[i]), float(self.eta[previous])
        m = math.sqrt(eta_s / eta_t)
        j = eta_s - math.sqrt(eta_s * eta_t)
        return 1 - j - m, m, j

    def input_scale(self, *, latent: bool) -> np.ndarray:
        """Return by what x_t is divided before the network sees it, by step.

        For latents of variance 1 it is sqrt(1 + kappa^2 eta), the standard deviation of x_t; for pixels in [-1, 1] it
        is 1 + 3 kappa sqrt(eta), the range that x_t almost never leaves.
        """
        return np.sqrt(1 + self.noise_std**2) if latent else 1 + 3 * self.noise_std

    def gather(self, table: np.ndarray, index: Tensor, like: Tensor) -> Tensor:
        """Return the entries of a table for each sample as `[N, 1, 1, 1]`, with dtype and device of `like`."""
        values = torch.as_tensor(table, dtype=torch.float64, device="cpu")[index.cpu()]
        return values.to(device=like.device, dtype=like.dtype).reshape(-1, 1, 1, 1)

    def choose_indices(self, steps: int | None) -> list[int]:
        """Return the step indices that sampling visits, from T - 1 down; evenly spaced if `steps` is below T.

        The last and the first index are among them; one step visits only T - 1.
        """
        return choose_indices(self.steps, self.steps if steps is None else steps)
