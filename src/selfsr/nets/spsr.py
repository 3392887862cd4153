"""SPSR (Ma et al., "Structure-Preserving Super Resolution With Gradient Guidance", CVPR 2020)."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv, init_he_normal_tenth
from selfsr.nets.layers import Float32Conv2d

_SLOPE = 0.2
# Factor of the residual of a dense block, and of a group of three.
_RES_SCALE = 0.2
# The branch uses the trunk's features at four places, five blocks apart in the published network of 23 blocks.
_TAPS = 4
_BLOCKS_PER_TAP = 5
# Added below the square root, so that the root has a gradient at 0.
_GRADIENT_FLOOR = 1e-6


class SpsrSpec(NetworkSpec):
    """SPSR: an RRDB trunk, and a branch that predicts the image's gradient map and guides the trunk."""

    title: ClassVar[str] = "SPSR"
    paper: ClassVar[str] = "Ma et al., CVPR 2020"
    convolutional: ClassVar[bool] = True
    has_branch: ClassVar[bool] = True
    scales_reason: ClassVar[str] = "each stage doubles the image"

    kind: Literal["spsr"] = "spsr"
    features: PositiveInt = Field(default=64, description="channels of the trunk (nf)")
    blocks: int = Field(default=23, ge=_TAPS, description="residual-in-residual dense blocks of the trunk (nb)")
    growth: PositiveInt = Field(default=32, description="channels that each convolution of a block adds (gc)")

    @property
    def scales(self) -> tuple[int, ...]:
        """Powers of two."""
        return (2, 4, 8)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Spsr(scale, channels, features=self.features, blocks=self.blocks, growth=self.growth)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the published names; one convolution has two names, of which a file may contain either."""
        if not {"model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "b_fea_conv.0.weight"} <= set(tensors):
            return None
        features, channels = tensors["model.0.weight"].shape[:2]
        spec = cls(
            features=features,
            blocks=key_names.count_layers(tensors, r"model\.1\.sub\.(\d+)\.RDB"),
            growth=tensors["model.1.sub.0.RDB1.conv1.0.weight"].shape[0],
        )
        # b_module has three layers a stage, and a convolution, its ReLU and another convolution after them.
        stages = (key_names.count_layers(tensors, r"b_module\.(\d+)\.") - 3) // 3
        completed = dict(tensors)
        for parameter in ("weight", "bias"):
            first, second = f"model.{3 * stages + 2}.{parameter}", f"HR_conv0_new.0.{parameter}"
            for name, other_name in ((first, second), (second, first)):
                if name not in tensors and other_name in tensors:
                    completed[name] = tensors[other_name]
        return Detected(spec, (2**stages,), channels, completed)


class Spsr(SrNetwork):
    """SPSR (figure 2 of the paper), under the names of its authors.

    The trunk is an RRDB without its last convolution. The branch starts from the gradient map of the low-resolution
    image, uses the trunk's features four times, and ends in features of the high-resolution gradient map. The last
    block fuses both. The last convolution of `model` is also `HR_conv0_new`, so the state dict contains it twice.
    Weights start as He normal times 0.1 and biases at 0, as the authors' do.

    Args:
        scale: 2, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels of the trunk.
        blocks: RRDBs of the trunk, at least 4.
        growth: channels that each convolution of a block adds.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int, growth: int) -> None:
        super().__init__(scale, channels)
        f, stages = features, round(math.log2(scale))
        self.blocks_per_tap: int = min(_BLOCKS_PER_TAP, blocks // _TAPS)
        trunk = [_SpsrRrdb(f, growth) for _ in range(blocks)]
        self.HR_conv0_new: nn.Sequential = _build_conv_lrelu(f, f)
        self.HR_conv1_new: nn.Sequential = nn.Sequential(conv(f, f))
        self.model: nn.Sequential = nn.Sequential(
            conv(channels, f), _SpsrTrunk(*trunk, conv(f, f)), *_build_nearest_upsampler(f, stages), *self.HR_conv0_new
        )
        self.get_g_nopadding: _GradientMap = _GradientMap()
        self.b_fea_conv: nn.Sequential = nn.Sequential(conv(channels, f))
        for n in range(1, _TAPS + 1):
            self.add_module(f"b_concat_{n}", nn.Sequential(conv(2 * f, f)))
            self.add_module(f"b_block_{n}", _SpsrRrdb(2 * f, growth))
        self.b_LR_conv: nn.Sequential = nn.Sequential(conv(f, f))
        self.b_module: nn.Sequential = nn.Sequential(
            *_build_nearest_upsampler(f, stages), *_build_conv_lrelu(f, f), conv(f, f)
        )
        self.conv_w: nn.Sequential = nn.Sequential(Float32Conv2d.like(conv(f, channels, 1)))
        self.f_concat: nn.Sequential = nn.Sequential(conv(2 * f, f))
        self.f_block: _SpsrRrdb = _SpsrRrdb(2 * f, growth)
        self.f_HR_conv0: nn.Sequential = _build_conv_lrelu(f, f)
        self.f_HR_conv1: nn.Sequential = nn.Sequential(Float32Conv2d.like(conv(f, channels)))
        init_he_normal_tenth(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped.

        In training mode, the result is a pair of the image and the branch's prediction of its gradient map, which has
        the same shape.
        """
        dtype, trunk = next(self.parameters()).dtype, self.model[1]
        assert isinstance(trunk, _SpsrTrunk)
        gradient = self.b_fea_conv(self.get_g_nopadding(x).to(dtype))
        first, branch = self.model[0](x.to(dtype)), gradient
        z = first
        for n, block in enumerate(trunk.sub, 1):
            z = block(z)
            tap = n // self.blocks_per_tap
            if n % self.blocks_per_tap == 0 and tap <= _TAPS:
                branch = self.get_submodule(f"b_block_{tap}")(torch.cat([branch, z], 1))
                branch = self.get_submodule(f"b_concat_{tap}")(branch)
        features = self.HR_conv1_new(self.model[2:](first + z))
        branch = self.b_module(self.b_LR_conv(branch) + gradient)
        image = self.f_HR_conv1(self.f_HR_conv0(self.f_concat(self.f_block(torch.cat([branch, features], 1)))))
        return (image, self.conv_w(branch)) if self.training else image


class _GradientMap(nn.Module):
    """Compute `sqrt(dx^2 + dy^2 + 1e-6)` of each channel, with zero padding.

    In float32 (or float64). The central differences are convolutions with buffers, because the published files contain
    these.
    """

    weight_h: Tensor
    weight_v: Tensor

    def __init__(self) -> None:
        super().__init__()
        difference = torch.zeros(1, 1, 3, 3)
        difference[0, 0, 1, 0], difference[0, 0, 1, 2] = -1, 1
        self.register_buffer("weight_h", difference)
        self.register_buffer("weight_v", difference.transpose(2, 3).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        planes = x.to(dtype).flatten(0, 1)[:, None]  # one channel each
        with torch.autocast(x.device.type, enabled=False):
            across, down = (functional.conv2d(planes, w.to(dtype), padding=1) for w in (self.weight_h, self.weight_v))
        return (across**2 + down**2 + _GRADIENT_FLOOR).sqrt().view(x.shape)


class _SpsrTrunk(nn.Module):
    """A wrapper that gives the blocks of the trunk their name in the published files."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.sub = nn.Sequential(*layers)


class _SpsrDenseBlock(nn.Module):
    """Compute `x + 0.2 * conv5(...)` by five densely connected convolutions (ESRGAN, figure 4)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            _build_conv_lrelu(features + n * growth, growth) for n in range(4)
        )
        self.conv5: nn.Sequential = nn.Sequential(conv(features + 4 * growth, features))

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = torch.cat([features, layer(features)], 1)
        return x.add(self.conv5(features), alpha=_RES_SCALE)


class _SpsrRrdb(nn.Module):
    """Compute `x + 0.2 * f(x)`, `f` three dense blocks."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.RDB1, self.RDB2, self.RDB3 = (_SpsrDenseBlock(features, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.add(self.RDB3(self.RDB2(self.RDB1(x))), alpha=_RES_SCALE)


def _build_conv_lrelu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs), nn.LeakyReLU(_SLOPE, inplace=True))


def _build_nearest_upsampler(features: int, stages: int) -> list[nn.Module]:
    """Return nearest-neighbor doublings, each with a convolution and a leaky ReLU."""
    layers: list[nn.Module] = []
    for _ in range(stages):
        layers += [nn.Upsample(scale_factor=2, mode="nearest"), *_build_conv_lrelu(features, features)]
    return layers
