"""Real-ESRGAN's discriminator: a U-Net with spectral norm and one logit for each pixel."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets.discriminators.base import DiscriminatorNetworkSpec
from selfsr.nets.discriminators.layers import SLOPE, SpectralConv2d
from selfsr.nets.layers import Float32Conv2d

# Three halvings, which the doublings must undo exactly.
_MULTIPLE_PX = 8


class UnetDiscriminatorSpec(DiscriminatorNetworkSpec):
    """Real-ESRGAN's U-Net discriminator; it has no batch norm."""

    title: ClassVar[str] = "U-Net with spectral norm"
    paper: ClassVar[str] = "Wang et al., Real-ESRGAN, ICCVW 2021"

    kind: Literal["unet_sn"] = "unet_sn"
    skip: bool = Field(default=True, description="add the encoder's maps to the decoder's (skip_connection)")

    def crop_problem(self, crop_px: int) -> str:
        """Return the multiple that crops must have, if `crop_px` has another side."""
        fits = crop_px >= _MULTIPLE_PX and crop_px % _MULTIPLE_PX == 0
        return "" if fits else f"expected a crop of a multiple of {_MULTIPLE_PX} px"

    def _make(self, channels: int, crop_px: int) -> nn.Module:  # noqa: ARG002 - convolutions accept any size
        return UnetDiscriminator(channels, features=self.features, skip=self.skip)


class UnetDiscriminator(nn.Module):
    """Three halvings by 4x4 convolutions of stride 2, then three bilinear doublings, each before a 3x3 convolution.

    Names are Real-ESRGAN's. All convolutions except the first and the last have spectral norm and no bias. All except
    the last are followed by leaky ReLU. Weights have PyTorch's default initialization, as there.

    Args:
        channels: channels of the image.
        features: channels at full size.
        skip: whether the encoder's maps are added to the decoder's.
    """

    def __init__(self, channels: int, *, features: int, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        f = features
        self.conv0: nn.Conv2d = nn.Conv2d(channels, f, 3, 1, 1)
        self.conv1: SpectralConv2d = _build_down(f, 2 * f)
        self.conv2: SpectralConv2d = _build_down(2 * f, 4 * f)
        self.conv3: SpectralConv2d = _build_down(4 * f, 8 * f)
        self.conv4: SpectralConv2d = _build_same(8 * f, 4 * f)
        self.conv5: SpectralConv2d = _build_same(4 * f, 2 * f)
        self.conv6: SpectralConv2d = _build_same(2 * f, f)
        self.conv7: SpectralConv2d = _build_same(f, f)
        self.conv8: SpectralConv2d = _build_same(f, f)
        self.conv9: Float32Conv2d = Float32Conv2d(f, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` in [0, 1], with sides that are multiples of 8, to float32 logits `[N, 1, H, W]`."""
        x = _lrelu(self.conv0(x))
        encoded = [x]
        for conv in (self.conv1, self.conv2, self.conv3):
            x = _lrelu(conv(x))
            encoded.append(x)
        for conv, skipped in zip((self.conv4, self.conv5, self.conv6), encoded[2::-1], strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = _lrelu(conv(x))
            x = x + skipped if self.skip else x
        return self.conv9(_lrelu(self.conv8(_lrelu(self.conv7(x)))))


def _build_down(inputs: int, outputs: int) -> SpectralConv2d:
    return SpectralConv2d(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False))


def _build_same(inputs: int, outputs: int) -> SpectralConv2d:
    return SpectralConv2d(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)
