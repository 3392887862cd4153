"""A network from a file, of any origin, as everything that upscales uses it."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr._checks import InputError
from selfsr.data.resize import imresize

# Luma of R, G, B by ITU-R BT.601, full range: how a grey network is shown a colour image.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Model:
    """A network from a file, ready to upscale, and what a caller must know to use it well.

    Attributes:
        net: in evaluation mode and float32; `[N, channels, h, w]` to `[N, channels, scale * h, scale * w]`.
        architecture: its name, as spandrel spells it.
        scale: upscaling factor; 1 for networks that restore.
        channels: of the input; 1 for grey, 3 for RGB, 4 for RGB and alpha.
        tiling: whether an image may be cut into tiles; "internal" networks cut it themselves.
        multiple_of_px: sides must be multiples of this; `upscale` sees to it.
        minimum_px: no side may be smaller; `upscale` sees to it.
        square: both sides must be equal; `upscale` sees to it.
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
        """Upscale images of any size and colour, without a gradient.

        A grey network is given the luma of a colour image, and the colour differences are upscaled bicubically.
        A network of RGB and alpha is given an opaque image.

        Args:
            lr: float `[N, C, h, w]` in [0, 1] on the device of the network, C = 1 or 3, or 4 where the network
                takes 4.

        Returns:
            `[N, C, scale * h, scale * w]` in [0, 1], dtype of `lr`.

        Raises:
            InputError: another number of channels.
        """
        if lr.shape[1] == self.channels:
            return self._run(lr).clamp(0, 1)
        if lr.shape[1] == 3 and self.channels == 4:
            return self._run(torch.cat([lr, torch.ones_like(lr[:, :1])], dim=1))[:, :3].clamp(0, 1)
        weights = torch.tensor(_LUMA, dtype=lr.dtype, device=lr.device).view(1, 3, 1, 1)
        if lr.shape[1] == 3 and self.channels == 1:
            luma = (lr * weights).sum(1, keepdim=True)
            return (self._run(luma) + imresize(lr - luma, self.scale)).clamp(0, 1)
        if lr.shape[1] == 1 and self.channels == 3:
            return (self._run(lr.expand(-1, 3, -1, -1)) * weights).sum(1, keepdim=True).clamp(0, 1)
        raise InputError(
            f"upscale: the {self.architecture} network takes {self.channels} channels, got {lr.shape[1]}; "
            "convert the image to RGB."
        )

    def _run(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        padded = _pad(lr, *self._padded_size(height, width))
        # A copy in any case: some networks of the community change their input in place.
        padded = padded.to(next(self.net.parameters()).dtype, copy=True)
        return self.net(padded)[..., : height * self.scale, : width * self.scale].to(lr.dtype)

    def _padded_size(self, height: int, width: int) -> tuple[int, int]:
        sides = [max(side, self.minimum_px) for side in (height, width)]
        sides = [-(-side // self.multiple_of_px) * self.multiple_of_px for side in sides]
        return (max(sides), max(sides)) if self.square else (sides[0], sides[1])


def _pad(image: Tensor, height: int, width: int) -> Tensor:
    """Grow `image` to the right and below by mirroring, and by repeating the edge where the mirror ends."""
    for axis, target in ((-2, height), (-1, width)):
        while (gap := target - image.shape[axis]) > 0:
            side = image.shape[axis]
            mirrored = min(gap, side - 1)
            pad = (0, 0, 0, mirrored or gap) if axis == -2 else (0, mirrored or gap, 0, 0)
            image = functional.pad(image, pad, mode="reflect" if mirrored else "replicate")
    return image
