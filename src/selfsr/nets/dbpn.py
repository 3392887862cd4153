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

# Side of the projections' kernels by scale, which is their stride.
_KERNEL_PX = {2: 6, 4: 8, 8: 12}


class DbpnSpec(NetworkSpec):
    """D-DBPN: alternating up- and down-projections, each corrected by the error of projecting back."""

    title: ClassVar[str] = "D-DBPN"
    paper: ClassVar[str] = "Haris et al., CVPR 2018"
    convolutional: ClassVar[bool] = True
    scales_reason: ClassVar[str] = "the authors give kernels only for these"

    kind: Literal["dbpn"] = "dbpn"
    features: PositiveInt = Field(default=128, description="channels of the first convolution (n0)")
    projected: PositiveInt = Field(default=32, description="channels of every projection (nr)")
    stages: int = Field(default=6, ge=2, description="up-projections; there is one down-projection fewer (depth)")

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales of the paper."""
        return tuple(_KERNEL_PX)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Dbpn(scale, channels, features=self.features, projected=self.projected, stages=self.stages)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the names of EDSR's PyTorch code."""
        if not {"initial.0.weight", "initial.2.weight", "upmodules.0.conv_1.0.weight"} <= set(tensors):
            return None
        features, channels = tensors["initial.0.weight"].shape[:2]
        side = tensors["upmodules.0.conv_1.0.weight"].shape[-1]
        scales = tuple(scale for scale, kernel_px in _KERNEL_PX.items() if kernel_px == side)
        projected, stages = tensors["initial.2.weight"].shape[0], key_names.count_layers(tensors, r"upmodules\.(\d+)\.")
        if not scales or stages < 2:
            return None
        spec = cls(features=features, projected=projected, stages=stages)
        return Detected(spec, scales, channels, key_names.to_range_255(tensors))


class Dbpn(SrNetwork):
    """D-DBPN as in EDSR's PyTorch code, with mean shifts and an internal range of 0 to 255.

    Starting from `l = initial(sub_mean(x))`, each up-projection takes all low-resolution maps and each down-projection
    all high-resolution maps so far; `y = add_mean(reconstruction([h1, ..., hT]))`. Weights have PyTorch's default
    initialization.

    Args:
        scale: 2, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels of the first convolution.
        projected: channels of every projection.
        stages: up-projections.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, projected: int, stages: int) -> None:
        super().__init__(scale, channels)
        self.sub_mean: MeanShift = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean: MeanShift = MeanShift(channels, 1, VALUE_RANGE)
        self.initial: nn.Sequential = nn.Sequential(
            conv(channels, features), nn.PReLU(features), conv(features, projected, 1), nn.PReLU(projected)
        )
        # Projection n takes n maps, the first two up-projections take one.
        self.upmodules: nn.ModuleList = nn.ModuleList(
            _Projection(max(1, n), projected, scale, up=True) for n in range(stages)
        )
        self.downmodules: nn.ModuleList = nn.ModuleList(
            _Projection(n, projected, scale, up=False) for n in range(1, stages)
        )
        self.reconstruction: nn.Sequential = nn.Sequential(Float32Conv2d.like(conv(stages * projected, channels)))

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
    """Compute `a + project(back(a) - x)`, `a = project(x)` (figure 3 of the paper).

    `project` goes up or down by the scale, `back` in the other direction.
    """

    def __init__(self, maps: int, projected: int, scale: int, *, up: bool) -> None:
        super().__init__()
        self.bottleneck = None
        if maps > 1:
            self.bottleneck = nn.Sequential(conv(maps * projected, projected, 1), nn.PReLU(projected))
        self.conv_1 = _build_resampling(projected, scale, up=up)
        self.conv_2 = _build_resampling(projected, scale, up=not up)
        self.conv_3 = _build_resampling(projected, scale, up=up)

    def forward(self, x: Tensor) -> Tensor:
        if self.bottleneck is not None:
            x = self.bottleneck(x)
        projected = self.conv_1(x)
        return projected + self.conv_3(self.conv_2(projected) - x)


def _build_resampling(projected: int, scale: int, *, up: bool) -> nn.Sequential:
    layer = nn.ConvTranspose2d if up else nn.Conv2d
    kernel_px = _KERNEL_PX[scale]
    padding = (kernel_px - scale) // 2
    return nn.Sequential(layer(projected, projected, kernel_px, stride=scale, padding=padding), nn.PReLU(projected))
