"""EDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017).

Written under the key names of the published checkpoints (`head.0`, `body.3.body.0`, `tail.0.2`, ...) and with
their value range of 0 to 255 inside, so those checkpoints load; images go in and come out in [0, 1].
"""

import math
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.layers import Float32Conv2d, MeanShift

# What 1.0 is between the two mean shifts, as in the published weights.
VALUE_RANGE = 255.0


class EdsrSpec(NetworkSpec):
    """EDSR; the defaults are the authors' baseline, `features=256, blocks=32, res_scale=0.1` their paper's."""

    title: ClassVar[str] = "EDSR"
    paper: ClassVar[str] = "Lim et al., CVPRW 2017"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 1_517_571

    kind: Literal["edsr"] = "edsr"
    features: PositiveInt = Field(default=64, description="channels of the body (n_feats)")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the body (n_resblocks)")
    res_scale: PositiveFloat = Field(
        default=1.0, description="what each residual is multiplied by; 0.1 keeps 256 channels stable"
    )

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Edsr(scale, channels, features=self.features, blocks=self.blocks, res_scale=self.res_scale)


class Edsr(nn.Module):
    """The network of EDSR: `y = shift(tail(h + body(h)))` with `h = head(unshift(x))`.

    Under autocast both mean shifts and the last convolution compute in float32. In bfloat16 a brightness of 128
    to 255 is a whole number: the small fitted EDSR of tests/nets/test_edsr.py is off from its float32 self by
    0.29 grey levels (root mean square, 1.2 at worst) where all of it runs in bfloat16, and by 0.10 (0.4) with
    float32 ends. The ends are 0.5 % of the multiplications of the x2 baseline.

    Weights start as PyTorch initialises a convolution, which is what the authors' code does.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 3 for RGB, 1 for grey.
        features: channels of the body.
        blocks: residual blocks of the body.
        res_scale: what each residual is multiplied by.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int, res_scale: float) -> None:
        super().__init__()
        self.scale, self.channels, self.res_scale = scale, channels, res_scale
        self.sub_mean = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean = MeanShift(channels, 1, VALUE_RANGE)
        self.head = nn.Sequential(_conv(channels, features))
        self.body = nn.Sequential(*(_Block(features, res_scale) for _ in range(blocks)), _conv(features, features))
        self.tail = nn.Sequential(_upsampler(scale, features), Float32Conv2d(features, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shifted = self.sub_mean(x * VALUE_RANGE).to(self.head[0].weight.dtype)
        features = self.head(shifted)
        return self.add_mean(self.tail(features + self.body(features))) / VALUE_RANGE

    def facts(self) -> dict[str, str]:
        """Return what a weights file must say of the network because its tensors do not show it."""
        return {"res_scale": repr(self.res_scale)}


class _Block(nn.Module):
    """`x + res_scale * conv(relu(conv(x)))`, without batch normalisation."""

    def __init__(self, features: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.body = nn.Sequential(_conv(features, features), nn.ReLU(inplace=True), _conv(features, features))

    def forward(self, x: Tensor) -> Tensor:
        return x.add(self.body(x), alpha=self.res_scale)


def _upsampler(scale: int, features: int) -> nn.Sequential:
    """Return one stage for a scale of 3, and a stage of 2 for each doubling otherwise."""
    stages = [3] if scale == 3 else [2] * round(math.log2(scale))
    layers = []
    for factor in stages:
        layers += [_conv(features, features * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
