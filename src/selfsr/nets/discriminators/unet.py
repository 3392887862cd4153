"""Real-ESRGAN's discriminator: a U-Net that judges every pixel, its gain bounded by spectral norm."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets.discriminators.base import DiscriminatorNetworkSpec
from selfsr.nets.discriminators.layers import SLOPE, SpectralConv2d
from selfsr.nets.layers import Float32Conv2d

# The three halvings of the U-Net, which the way up must meet.
_MULTIPLE_PX = 8


class UnetDiscriminatorSpec(DiscriminatorNetworkSpec):
    """Real-ESRGAN's discriminator, without statistics over the batch."""

    title: ClassVar[str] = "U-Net with spectral norm"
    paper: ClassVar[str] = "Wang et al., Real-ESRGAN, ICCVW 2021"

    kind: Literal["unet_sn"] = "unet_sn"
    skip: bool = Field(default=True, description="add the maps of the way down on the way up (skip_connection)")

    def _misfit(self, crop_px: int) -> str:
        fits = crop_px >= _MULTIPLE_PX and crop_px % _MULTIPLE_PX == 0
        return "" if fits else f"expected a crop of a multiple of {_MULTIPLE_PX} px"

    def _make(self, channels: int, crop_px: int) -> nn.Module:  # noqa: ARG002 - of convolutions alone: any size
        return UnetDiscriminator(channels, features=self.features, skip=self.skip)


class UnetDiscriminator(nn.Module):
    """Three halvings by 4x4 convolutions of stride 2, and three doublings, bilinear, each before a 3x3 convolution.

    Names are Real-ESRGAN's. Every convolution but the first and the last has spectral norm and no bias, and every one
    but the last is followed by leaky ReLU. Weights start as PyTorch's own, as there.

    Args:
        channels: of the image.
        features: channels at full size.
        skip: whether maps of the way down are added on the way up.
    """

    def __init__(self, channels: int, *, features: int, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        f = features
        self.conv0 = nn.Conv2d(channels, f, 3, 1, 1)
        self.conv1, self.conv2, self.conv3 = _halving(f, 2 * f), _halving(2 * f, 4 * f), _halving(4 * f, 8 * f)
        self.conv4, self.conv5, self.conv6 = _level(8 * f, 4 * f), _level(4 * f, 2 * f), _level(2 * f, f)
        self.conv7, self.conv8 = _level(f, f), _level(f, f)
        self.conv9 = Float32Conv2d(f, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Judge `[N, C, H, W]` in [0, 1], sides multiples of 8: float32 logits `[N, 1, H, W]`."""
        x = _lrelu(self.conv0(x))
        down = [x]
        for conv in (self.conv1, self.conv2, self.conv3):
            x = _lrelu(conv(x))
            down.append(x)
        for conv, passed in zip((self.conv4, self.conv5, self.conv6), down[2::-1], strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = _lrelu(conv(x))
            x = x + passed if self.skip else x
        return self.conv9(_lrelu(self.conv8(_lrelu(self.conv7(x)))))


def _halving(inputs: int, outputs: int) -> SpectralConv2d:
    return SpectralConv2d(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))


def _level(inputs: int, outputs: int) -> SpectralConv2d:
    return SpectralConv2d(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)
