"""SRResNet without batch norm, as BasicSR and as RankSRGAN have it (Wang et al., ESRGAN; Zhang et al., RankSRGAN)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets import names
from selfsr.nets.base import NetworkSpec, Recognised, SrNetwork
from selfsr.nets.blocks import conv, he_normal_tenth
from selfsr.nets.layers import Float32Conv2d

_SLOPE = 0.1
# BasicSR's network by the names of mmsr, its predecessor.
_MMSR = [(r"recon_trunk\.", "body."), (r"HRconv\.", "conv_hr.")]


class MsrResNetSpec(NetworkSpec):
    """SRResNet without batch norm, as BasicSR has it: it corrects the bilinearly upscaled image."""

    title: ClassVar[str] = "MSRResNet"
    paper: ClassVar[str] = "Ledig et al., CVPR 2017, and BasicSR"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 1_517_571

    kind: Literal["msrresnet"] = "msrresnet"
    features: PositiveInt = Field(default=64, description="channels of the body (num_feat)")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the body (num_block)")

    @property
    def scales(self) -> tuple[int, ...]:
        """The published ones."""
        return (2, 3, 4)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return MsrResNet(scale, channels, features=self.features, blocks=self.blocks)

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Recognised | None:  # noqa: ARG003
        """Know the names of BasicSR, and those of mmsr before it."""
        if "LRconv.weight" in tensors:
            return None
        renamed = names.renamed(tensors, _MMSR)
        if not {"conv_first.weight", "body.0.conv1.weight", "upconv1.weight", "conv_hr.weight"} <= set(renamed):
            return None
        features, channels = renamed["conv_first.weight"].shape[:2]
        spec = cls(features=features, blocks=names.count(renamed, r"body\.(\d+)\."))
        return Recognised(spec, (names.pixel_shuffles(renamed, r"upconv\d\.weight"),), channels, renamed)


class RankSrResNetSpec(NetworkSpec):
    """SRResNet without batch norm, as RankSRGAN has it: ReLU, and a skip of features in place of one of the image."""

    title: ClassVar[str] = "SRResNet (RankSRGAN)"
    paper: ClassVar[str] = "Zhang et al., RankSRGAN, ICCV 2019"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 1_554_499

    kind: Literal["rank_srresnet"] = "rank_srresnet"
    features: PositiveInt = Field(default=64, description="channels of the body (nf)")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the body (nb)")

    @property
    def scales(self) -> tuple[int, ...]:
        """The published ones."""
        return (2, 3, 4)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return RankSrResNet(scale, channels, features=self.features, blocks=self.blocks)

    @classmethod
    def recognise(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Recognised | None:  # noqa: ARG003
        """Know the published names."""
        if not {"conv_first.weight", "recon_trunk.0.conv1.weight", "LRconv.weight", "upconv1.weight"} <= set(tensors):
            return None
        features, channels = tensors["conv_first.weight"].shape[:2]
        spec = cls(features=features, blocks=names.count(tensors, r"recon_trunk\.(\d+)\."))
        return Recognised(spec, (names.pixel_shuffles(tensors, r"upconv\d\.weight"),), channels, dict(tensors))


class MsrResNet(SrNetwork):
    """BasicSR's: `y = last(lrelu(hr(stages(body(lrelu(first(x))))))) + bilinear(x)`, a stage `lrelu(shuffle(conv))`.

    The leaky ReLU has a slope of 0.1. Weights start He normal times 0.1 and biases 0, as there.

    Args:
        scale: 2, 3 or 4.
        channels: 3 for RGB, 1 for grey.
        features: channels of the body.
        blocks: residual blocks of the body.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int) -> None:
        super().__init__(scale, channels)
        self.conv_first = conv(channels, features)
        self.body = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        _add_stages(self, features, scale)
        self.conv_hr = conv(features, features)
        self.conv_last = Float32Conv2d.like(conv(features, channels))
        he_normal_tenth(self)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        z = self.body(_lrelu(self.conv_first(x.to(self.conv_first.weight.dtype))))
        for n in range(1, _stages(self.scale) + 1):
            z = _lrelu(functional.pixel_shuffle(self.get_submodule(f"upconv{n}")(z), _factor(self.scale)))
        image = self.conv_last(_lrelu(self.conv_hr(z)))
        base = x.to(torch.promote_types(x.dtype, torch.float32))
        return image + functional.interpolate(base, scale_factor=self.scale, mode="bilinear", align_corners=False)


class RankSrResNet(SrNetwork):
    """RankSRGAN's: `y = last(relu(hr(stages(h + lr(trunk(h))))))` with `h = first(x)`, a stage `relu(shuffle(conv))`.

    Weights start He normal times 0.1 and biases 0, but for `LRconv`, which starts as PyTorch's own, as there.

    Args:
        scale: 2, 3 or 4.
        channels: 3 for RGB, 1 for grey.
        features: channels of the body.
        blocks: residual blocks of the body.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int) -> None:
        super().__init__(scale, channels)
        self.conv_first = conv(channels, features)
        self.recon_trunk = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        _add_stages(self, features, scale)
        self.HRconv = conv(features, features)
        self.conv_last = Float32Conv2d.like(conv(features, channels))
        he_normal_tenth(self)
        self.LRconv = conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        first = self.conv_first(x.to(self.conv_first.weight.dtype))
        z = first + self.LRconv(self.recon_trunk(first))
        for n in range(1, _stages(self.scale) + 1):
            z = torch.relu(functional.pixel_shuffle(self.get_submodule(f"upconv{n}")(z), _factor(self.scale)))
        return self.conv_last(torch.relu(self.HRconv(z)))


class _Block(nn.Module):
    """`x + conv(relu(conv(x)))`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(features, features), conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


def _add_stages(net: nn.Module, features: int, scale: int) -> None:
    for n in range(1, _stages(scale) + 1):
        net.add_module(f"upconv{n}", conv(features, features * _factor(scale) ** 2))


def _stages(scale: int) -> int:
    return 2 if scale == 4 else 1


def _factor(scale: int) -> int:
    return 3 if scale == 3 else 2


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)
