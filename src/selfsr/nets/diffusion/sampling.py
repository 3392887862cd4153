"""How a diffusion network makes its output: the seed, the steps and the color fix, which commands and recipes set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.images.color_fix import ColorFix
from selfsr.images.resize import imresize
from selfsr.nets.base import SrNetwork
from selfsr.nets.layers import pad_reflect


@dataclass(frozen=True)
class Sampling:
    """How a network makes its output from now on; see `set_sampling`.

    Attributes:
        seed: seed of the noise. Outputs with one seed are equal.
        steps: sampling steps; None is all steps of the schedule.
        deterministic: steps without new noise.
        color_fix: what gives the output the colors of the input.
        origin_px: row and column of the output's first pixel in the complete image, which places the noise.
    """

    seed: int = 0
    steps: int | None = None
    deterministic: bool = False
    color_fix: ColorFix = "none"
    origin_px: tuple[int, int] = (0, 0)


class DiffusionNetwork(SrNetwork):
    """Base of the networks that pad their input and fix the colors of their output by themselves.

    Args:
        scale: upscaling factor.
        channels: channels of the images.
        sampling: how it makes its output, until `set_sampling` changes it.

    Attributes:
        sampling: how it makes its output.
        trained_steps: the most steps that it can sample with.
        multiple_of_px: the number of pixels of which each side of the padded input is a multiple.
    """

    multiple_of_px: Any

    def __init__(self, scale: int, channels: int, sampling: Sampling) -> None:
        super().__init__(scale, channels)
        self.sampling = sampling
        self.trained_steps: int = 1

    def pad(self, lr: Tensor) -> Tensor:
        """Return the input `[N, C, h, w]` with sides that the network takes, padded by reflection."""
        height, width = lr.shape[-2:]
        multiple = self.multiple_of_px
        return pad_reflect(lr, -(-height // multiple) * multiple, -(-width // multiple) * multiple)

    def enlarge(self, lr: Tensor) -> Tensor:
        """Return the input enlarged by bicubic to the size of the output, in [0, 1], without a gradient."""
        return imresize(lr.detach().float(), self.scale).clamp(0, 1)


def set_sampling(net: nn.Module, **changes: Any) -> None:
    """Change how a network samples from now on, by the fields of `Sampling`; other networks stay as they are.

    Raises:
        InputError: `steps` are more than the network was trained with.
    """
    if not isinstance(net, DiffusionNetwork):
        return
    steps, trained = changes.get("steps"), net.trained_steps
    if steps is not None and not 1 <= steps <= trained:
        raise InputError(
            f"steps: expected {'1' if trained == 1 else f'1 to {trained}'}, the steps that the network was trained "
            f"with, got {steps}; lower it."
        )
    net.sampling = replace(net.sampling, **changes)


def get_sampling(net: nn.Module) -> Sampling:
    """Return how a network samples."""
    assert isinstance(net, DiffusionNetwork)
    return net.sampling


def describe_sampling(net: nn.Module) -> dict[str, Any]:
    """Return how a network samples, without the seed, as results list it."""
    assert isinstance(net, DiffusionNetwork)
    sampling = net.sampling
    steps = sampling.steps or net.trained_steps
    return {"steps": steps, "deterministic": sampling.deterministic, "color_fix": sampling.color_fix}


@contextmanager
def keep_sampling(net: nn.Module) -> Iterator[None]:
    """Restore afterwards how a network samples; nothing happens to other networks."""
    kept = net.sampling if isinstance(net, DiffusionNetwork) else None
    try:
        yield
    finally:
        if isinstance(net, DiffusionNetwork) and kept is not None:
            net.sampling = kept
