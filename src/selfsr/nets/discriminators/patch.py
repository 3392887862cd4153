"""PatchGAN, the discriminator of pix2pix and CycleGAN: one logit for each patch, 70 x 70 px with three halvings."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from selfsr.nets.discriminators.base import DiscriminatorNetworkSpec, add_norm
from selfsr.nets.discriminators.layers import SLOPE, SpectralConv2d
from selfsr.nets.layers import Float32Conv2d

# The authors' standard deviation of initial weights (mean 0) and of batch norm scales (mean 1).
_START_STD = 0.02
# The last two convolutions shorten a map by one pixel each.
_SHORTENED_PX = 2


class PatchDiscriminatorSpec(DiscriminatorNetworkSpec):
    """PatchGAN without a condition; CycleGAN takes `norm: instance`."""

    title: ClassVar[str] = "PatchGAN"
    paper: ClassVar[str] = "Isola et al., pix2pix, CVPR 2017"

    kind: Literal["patch"] = "patch"
    layers: int = Field(
        default=3,
        ge=1,
        le=6,
        description="convolutions of stride 2; 1, 2, 3, 4 give patches of 16, 34, 70, 142 px (n_layers)",
    )
    norm: Literal["batch", "instance", "spectral", "none"] = Field(
        default="batch",
        description="norm of the convolutions; batch and instance norm are not on the first and the last one",
    )

    def crop_problem(self, crop_px: int) -> str:
        """Return the smallest crop that leaves one logit, if `crop_px` is smaller."""
        least = (_SHORTENED_PX + 1) * 2**self.layers
        return f"expected a crop of at least {least} px with layers {self.layers}" if crop_px < least else ""

    def _make(self, channels: int, crop_px: int) -> nn.Module:  # noqa: ARG002 - convolutions accept any size
        return PatchDiscriminator(channels, features=self.features, layers=self.layers, norm=self.norm)


class PatchDiscriminator(nn.Module):
    """4x4 convolutions, `layers` of stride 2 and then two of stride 1, with leaky ReLU between them.

    Names are pix2pix's, and so is the range of -1 to 1 at the first layer. Channels double from layer to layer, up to
    eight times the first. Weights start as normal with a standard deviation of 0.02.

    Args:
        channels: channels of the image.
        features: channels of the first layer.
        layers: number of convolutions of stride 2.
        norm: "batch", "instance", "spectral" or "none".
    """

    def __init__(self, channels: int, *, features: int, layers: int, norm: str) -> None:
        super().__init__()
        widths = [features * min(2**n, 8) for n in range(layers + 1)]
        bare = "spectral" if norm == "spectral" else "none"
        modules = [*add_norm(nn.Conv2d(channels, features, 4, 2, 1), bare), nn.LeakyReLU(SLOPE, inplace=True)]
        for n in range(1, layers + 1):
            conv = nn.Conv2d(widths[n - 1], widths[n], 4, 2 if n < layers else 1, 1, bias=norm != "batch")
            modules += [*add_norm(conv, norm), nn.LeakyReLU(SLOPE, inplace=True)]
        last = Float32Conv2d(widths[-1], 1, 4, padding=1)
        modules.append(SpectralConv2d(last, float32=True) if bare == "spectral" else last)
        self.model: nn.Sequential = nn.Sequential(*modules)
        for module in self.modules():
            _init_weights(module)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` in [0, 1] to float32 logits `[N, 1, h, w]`, one for each patch."""
        return self.model(2 * x - 1)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, SpectralConv2d):
        nn.init.normal_(module.weight_orig, 0.0, _START_STD)
        module.update_estimate()
    elif isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, _START_STD)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, _START_STD)
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
