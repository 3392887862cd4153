"""D-DBPN (Haris et al., "Deep Back-Projection Networks for Super-Resolution", CVPR 2018)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, MeanShift

# Side of the projections' kernels by the scale, which is their stride; with this padding the sizes come out exactly.
_KERNEL_PX = {2: 6, 4: 8, 8: 12}


class DbpnSpec(NetworkSpec):
    """D-DBPN: up and down again, each time with the error of the way back corrected."""

    title: ClassVar[str] = "D-DBPN"
    paper: ClassVar[str] = "Haris et al., CVPR 2018"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 2_207_043
    why_scales: ClassVar[str] = "the authors give the kernels of these alone"

    kind: Literal["dbpn"] = "dbpn"
    features: PositiveInt = Field(default=128, description="channels of the first convolution (n0)")
    projected: PositiveInt = Field(default=32, description="channels of every projection (nr)")
    stages: int = Field(default=6, ge=2, description="ways up; the ways down are one fewer (depth)")

    @property
    def scales(self) -> tuple[int, ...]:
        """Those of the paper."""
        return tuple(_KERNEL_PX)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Dbpn(scale, channels, features=self.features, projected=self.projected, stages=self.stages)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Detected | None:  # noqa: ARG003
        """Know the names of EDSR's PyTorch code."""
        if not {"initial.0.weight", "initial.2.weight", "upmodules.0.conv_1.0.weight"} <= set(tensors):
            return None
        features, channels = tensors["initial.0.weight"].shape[:2]
        side = tensors["upmodules.0.conv_1.0.weight"].shape[-1]
        scales = tuple(scale for scale, kernel_px in _KERNEL_PX.items() if kernel_px == side)
        projected, stages = tensors["initial.2.weight"].shape[0], key_names.count(tensors, r"upmodules\.(\d+)\.")
        if not scales or stages < 2:
            return None
        spec = cls(features=features, projected=projected, stages=stages)
        return Detected(spec, scales, channels, key_names.of_range_255(tensors))


class Dbpn(SrNetwork):
    """The network of D-DBPN as EDSR's PyTorch code has it, with a mean shift around it and 0 to 255 inside.

    From `l = initial(unshift(x))` on, each up-projection takes all low-resolution maps and each down-projection
    all high-resolution maps so far; `y = shift(reconstruction([h1, ..., hT]))`. Weights start as PyTorch
    initializes a convolution.

    Args:
        scale: 2, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels of the first convolution.
        projected: channels of every projection.
        stages: ways up.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, projected: int, stages: int) -> None:
        super().__init__(scale, channels)
        self.sub_mean = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean = MeanShift(channels, 1, VALUE_RANGE)
        self.initial = nn.Sequential(
            conv(channels, features), nn.PReLU(features), conv(features, projected, 1), nn.PReLU(projected)
        )
        # Unit n sees n maps, the first two up-projections one.
        self.upmodules = nn.ModuleList(_Projection(max(1, n), projected, scale, up=True) for n in range(stages))
        self.downmodules = nn.ModuleList(_Projection(n, projected, scale, up=False) for n in range(1, stages))
        self.reconstruction = nn.Sequential(Float32Conv2d.like(conv(stages * projected, channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shifted = self.sub_mean(x * VALUE_RANGE).to(self.initial[0].weight.dtype)
        high = [self.upmodules[0](self.initial(shifted))]
        low = []
        for up, down in zip(self.upmodules[1:], self.downmodules, strict=True):
            low.append(down(torch.cat(high, 1)))
            high.append(up(torch.cat(low, 1)))
        return self.add_mean(self.reconstruction(torch.cat(high, 1))) / VALUE_RANGE


class _Projection(nn.Module):
    """`a + there(x - back(a))` with `a = there(x)`, where `there` is up or down and `back` the other (figure 3)."""

    def __init__(self, maps: int, projected: int, scale: int, *, up: bool) -> None:
        super().__init__()
        self.bottleneck = None
        if maps > 1:
            self.bottleneck = nn.Sequential(conv(maps * projected, projected, 1), nn.PReLU(projected))
        self.conv_1 = _resampled(projected, scale, up=up)
        self.conv_2 = _resampled(projected, scale, up=not up)
        self.conv_3 = _resampled(projected, scale, up=up)

    def forward(self, x: Tensor) -> Tensor:
        if self.bottleneck is not None:
            x = self.bottleneck(x)
        there = self.conv_1(x)
        return there + self.conv_3(self.conv_2(there) - x)


def _resampled(projected: int, scale: int, *, up: bool) -> nn.Sequential:
    layer = nn.ConvTranspose2d if up else nn.Conv2d
    kernel_px = _KERNEL_PX[scale]
    padding = (kernel_px - scale) // 2
    return nn.Sequential(layer(projected, projected, kernel_px, stride=scale, padding=padding), nn.PReLU(projected))
