"""A network from a weights file, with the properties that a caller needs to upscale images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.images.color import rgb_to_luma
from selfsr.images.resize import imresize
from selfsr.nets.layers import pad_reflect


@dataclass(frozen=True)
class Model:
    """A network from a weights file, ready to upscale.

    Attributes:
        net: in evaluation mode and float32; maps `[N, channels, h, w]` to `[N, channels, scale * h, scale * w]`.
        architecture: the network's name; spandrel's name if spandrel supports it.
        scale: upscaling factor; 1 for networks that only restore.
        channels: channels of the input; 1 for gray, 3 for RGB, 4 for RGB and alpha.
        tiling: whether an image may be cut into tiles; "internal" networks do so themselves.
        multiple_of_px: sides of the network's input must be multiples of this; `upscale` pads them.
        minimum_px: smallest side of the network's input, in pixels; `upscale` pads smaller images.
        square: both sides of the network's input must be equal; `upscale` pads the shorter one.
        supports_half: the network can run in float16.
        supports_bfloat16: the network can run in bfloat16.
        is_diffusion: the network pads its input and fixes the colors of its output; `set_sampling` sets how.
        is_sampled: the network draws its output at random; `set_sampling` sets the seed.
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
    is_diffusion: bool = False
    is_sampled: bool = False

    @torch.no_grad()
    def upscale(self, lr: Tensor) -> Tensor:
        """Upscale images of any size, gray or color, without gradients (see `upscale_any_channels`).

        Args:
            lr: float `[N, C, h, w]` in [0, 1] on the device of the network, C = 1 or 3, or 4 if the network has 4.

        Returns:
            `[N, C, scale * h, scale * w]` in [0, 1], with the dtype of `lr`.

        Raises:
            InputError: the image has another number of channels.
        """
        return upscale_any_channels(
            self._run, lr, channels=self.channels, scale=self.scale, architecture=self.architecture
        ).clamp(0, 1)

    def _run(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        if self.is_diffusion:  # it pads by itself, so that it matches colors without the padding
            return self.net(lr).to(lr.dtype)
        padded = pad_reflect(lr, *self._padded_size(height, width))
        # Always a copy, because some networks from elsewhere change their input in place.
        padded = padded.to(next(self.net.parameters()).dtype, copy=True)
        return self.net(padded)[..., : height * self.scale, : width * self.scale].to(lr.dtype)

    def _padded_size(self, height: int, width: int) -> tuple[int, int]:
        sides = [max(side, self.minimum_px) for side in (height, width)]
        sides = [-(-side // self.multiple_of_px) * self.multiple_of_px for side in sides]
        return (max(sides), max(sides)) if self.square else (sides[0], sides[1])


def upscale_any_channels(
    net: Callable[[Tensor], Tensor], lr: Tensor, *, channels: int, scale: int, architecture: str
) -> Tensor:
    """Upscale color or gray images with a network for either.

    A gray network upscales the luma of a color image, and bicubic upscales the color differences. This is the
    protocol of the literature: Y by the network, Cb and Cr by bicubic. An RGB network gets a gray image in all three
    channels, a network with alpha gets an opaque image.

    Args:
        net: maps `[N, channels, h, w]` to `[N, channels, scale * h, scale * w]`.
        lr: `[N, C, h, w]` in [0, 1], C = 1 or 3, or `channels`.
        channels: channels of the network's input: 1, 3 or 4.
        scale: upscaling factor of the network.
        architecture: name of the network, for the error message.

    Returns:
        `[N, C, scale * h, scale * w]`, not clamped.

    Raises:
        InputError: the image has another number of channels.
    """
    if lr.shape[1] == channels:
        return net(lr)
    if lr.shape[1] == 3 and channels == 4:
        return net(torch.cat([lr, torch.ones_like(lr[:, :1])], dim=1))[:, :3]
    if lr.shape[1] == 3 and channels == 1:
        luma = rgb_to_luma(lr)
        return net(luma) + imresize(lr - luma, scale)
    if lr.shape[1] == 1 and channels == 3:
        return rgb_to_luma(net(lr.expand(-1, 3, -1, -1)))
    raise InputError(
        f"upscale: the {architecture} network takes {channels} channels, got {lr.shape[1]}; convert the image to RGB."
    )
