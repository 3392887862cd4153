"""Networks that sample their output: the interface for training by denoising, and the frame of all samplers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from selfsr.images.color_fix import fix_colors
from selfsr.nets.diffusion.noise import sampling_noise
from selfsr.nets.diffusion.sampling import DiffusionNetwork


class SampledNetwork(DiffusionNetwork, ABC):
    """Base of the networks that sample. With noisy values, `forward` is the pass that is trained.

    A method trains them without knowledge of their process: it draws an index and noise for each sample, lets
    `add_noise` make x_t, asks `forward` for a prediction, compares it with `target`, and gets x0 by `predict_x0`.

    Attributes:
        gate_option: the option of `image_loss` that bounds `noise_levels`.
        default_gate: the bound if the option is null; None is any level.
        space: the `Space` of the values on which the process works.
        schedule: tables of the process by index, with `steps`, `snr_root` and `gather`.
    """

    gate_option: ClassVar[Literal["max_noise", "max_gain"]]
    default_gate: ClassVar[float | None] = None

    space: Any
    schedule: Any

    @property
    @abstractmethod
    def noise_levels(self) -> np.ndarray:
        """How noisy x_t is by index, increasing, as `gate_option` measures it."""

    @abstractmethod
    def forward(self, image: Tensor, noisy: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """Sample an output, or with `noisy` predict from it.

        Args:
            image: input `[N, C, h, w]` in [0, 1]; with `noisy`, the condition that `condition` returns for it.
            noisy: x_t, of the shape of the values.
            index: index of each noisy sample, int64 `[N]`.

        Returns:
            A sample `[N, C, scale * h, scale * w]`, without a gradient; with `noisy`, the prediction.
        """

    @abstractmethod
    def condition(self, lr: Tensor) -> Tensor:
        """Return the condition that the trained pass gets for an input, without a gradient."""

    @abstractmethod
    def add_noise(self, x0: Tensor, condition: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Return x_t for values of the ground truth, the condition, standard normal noise and an index per sample."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Return what a perfect network predicts."""

    @abstractmethod
    def predict_x0(self, prediction: Tensor, noisy: Tensor, index: Tensor) -> Tensor:
        """Return the values of the ground truth from a prediction and x_t."""

    @abstractmethod
    def sample_values(self, lr: Tensor, on_stage: Callable[[int, Tensor], None] | None) -> Tensor:
        """Sample the values of an output for an input whose sides need no padding."""

    @torch.no_grad()
    def sample(self, lr: Tensor, on_stage: Callable[[int, Tensor], None] | None = None) -> Tensor:
        """Sample `[N, C, scale * h, scale * w]` for `[N, C, h, w]` in [0, 1]; sides are padded by reflection.

        Args:
            lr: the input.
            on_stage: called with the index and x_t as an image, from the start on, and with -1 and x_0.
        """
        height, width = lr.shape[-2:]
        values = self.sample_values(self.pad(lr), on_stage)
        image = self.space.decode(values)[..., : height * self.scale, : width * self.scale].clamp(0, 1)
        return fix_colors(image, self.enlarge(lr), self.sampling.color_fix)

    def draw_noise(self, stage: int, like: Tensor) -> Tensor:
        """Return the noise of a stage of sampling for values of this shape: one field for the complete batch."""
        top, left = (position // self.space.downscale for position in self.sampling.origin_px)
        noise = sampling_noise(
            self.sampling.seed, stage, like.shape[1], top, left, like.shape[2], like.shape[3], like.device
        )
        return noise.expand_as(like)


def choose_indices(total: int, steps: int) -> list[int]:
    """Return the indices that sampling visits, from the last one down, evenly spaced, with both ends.

    One step visits only the last index.

    Args:
        total: number of indices.
        steps: how many are visited, from 1 to `total`.

    Example:
        >>> choose_indices(1000, 4)
        [999, 666, 333, 0]
    """
    assert 1 <= steps <= total
    if steps == 1:
        return [total - 1]
    return [round(k * (total - 1) / (steps - 1)) for k in range(steps - 1, -1, -1)]
