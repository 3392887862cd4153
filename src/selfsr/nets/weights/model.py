"""A network from a file, of any origin, as everything that upscales uses it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.images.color import gray
from selfsr.images.resize import imresize
from selfsr.nets.layers import mirrored


@dataclass(frozen=True)
class Model:
    """A network from a file, ready to upscale, and what a caller must know to use it well.

    Attributes:
        net: in evaluation mode and float32; `[N, channels, h, w]` to `[N, channels, scale * h, scale * w]`.
        architecture: its name, that of spandrel where spandrel knows it.
        scale: upscaling factor; 1 for networks that restore.
        channels: of the input; 1 for gray, 3 for RGB, 4 for RGB and alpha.
        tiling: whether an image may be cut into tiles; "internal" networks cut it themselves.
        multiple_of_px: sides must be multiples of this; `upscaling` sees to it.
        minimum_px: no side may be smaller; `upscaling` sees to it.
        square: both sides must be equal; `upscaling` sees to it.
        supports_half: float16 is safe.
        supports_bfloat16: bfloat16 is safe.
    """

    net: nn.Module
    architecture: str
    scale: int
    channels: int
    tiling: Literal["supported", "discouraged", "internal"]
    multiple_of_px: int
    minimum_px: int
    square: bool
    supports_half: bool
    supports_bfloat16: bool

    @torch.no_grad()
    def upscale(self, lr: Tensor) -> Tensor:
        """Upscale images of any size and color, without a gradient (see `upscale_any_channels`).

        Args:
            lr: float `[N, C, h, w]` in [0, 1] on the device of the network, C = 1 or 3, or 4 where the network
                takes 4.

        Returns:
            `[N, C, scale * h, scale * w]` in [0, 1], dtype of `lr`.

        Raises:
            InputError: another number of channels.
        """
        return upscale_any_channels(
            self._run, lr, channels=self.channels, scale=self.scale, architecture=self.architecture
        ).clamp(0, 1)

    def _run(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        padded = mirrored(lr, *self._padded_size(height, width))
        # A copy in any case: some networks of the community change their input in place.
        padded = padded.to(next(self.net.parameters()).dtype, copy=True)
        return self.net(padded)[..., : height * self.scale, : width * self.scale].to(lr.dtype)

    def _padded_size(self, height: int, width: int) -> tuple[int, int]:
        sides = [max(side, self.minimum_px) for side in (height, width)]
        sides = [-(-side // self.multiple_of_px) * self.multiple_of_px for side in sides]
        return (max(sides), max(sides)) if self.square else (sides[0], sides[1])


def upscale_any_channels(
    net: Callable[[Tensor], Tensor], lr: Tensor, *, channels: int, scale: int, architecture: str
) -> Tensor:
    """Upscale color or gray images with a network that may take the other.

    A gray network is given the luma of a color image, and the color differences are upscaled bicubically: with
    its studio range inside, this is the literature's way of Y through the network, and Cb and Cr by bicubic. A
    network of RGB is given gray three times, one of RGB and alpha an opaque image.

    Args:
        net: `[N, channels, h, w]` to `[N, channels, scale * h, scale * w]`.
        lr: `[N, C, h, w]` in [0, 1], C = 1 or 3, or `channels`.
        channels: what the network takes: 1, 3 or 4.
        scale: its factor.
        architecture: its name, for the message.

    Returns:
        `[N, C, scale * h, scale * w]`, not clamped.

    Raises:
        InputError: another number of channels.
    """
    if lr.shape[1] == channels:
        return net(lr)
    if lr.shape[1] == 3 and channels == 4:
        return net(torch.cat([lr, torch.ones_like(lr[:, :1])], dim=1))[:, :3]
    if lr.shape[1] == 3 and channels == 1:
        luma = gray(lr)
        return net(luma) + imresize(lr - luma, scale)
    if lr.shape[1] == 1 and channels == 3:
        return gray(net(lr.expand(-1, 3, -1, -1)))
    raise InputError(
        f"upscale: the {architecture} network takes {channels} channels, got {lr.shape[1]}; convert the image to RGB."
    )
