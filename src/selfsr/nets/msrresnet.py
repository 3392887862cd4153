"""SRResNet without batch norm, as BasicSR and as RankSRGAN have it (Wang et al., ESRGAN; Zhang et al., RankSRGAN)."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv, he_normal_tenth
from selfsr.nets.layers import Float32Conv2d

_SLOPE = 0.1
# BasicSR's network by the names of mmsr, its predecessor.
_MMSR = [(r"recon_trunk\.", "body."), (r"HRconv\.", "conv_hr.")]


class _Spec(NetworkSpec):
    convolutional: ClassVar[bool] = True

    features: PositiveInt = Field(default=64, description="channels of the body (num_feat, nf)")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the body (num_block, nb)")

    @property
    def scales(self) -> tuple[int, ...]:
        """The published ones."""
        return (2, 3, 4)


class MsrResNetSpec(_Spec):
    """SRResNet without batch norm, as BasicSR has it: it corrects the bilinearly upscaled image."""

    title: ClassVar[str] = "MSRResNet"
    paper: ClassVar[str] = "Ledig et al., CVPR 2017, and BasicSR"
    parameters: ClassVar[int] = 1_517_571

    kind: Literal["msrresnet"] = "msrresnet"

    def _make(self, scale: int, channels: int) -> nn.Module:
        return MsrResNet(scale, channels, features=self.features, blocks=self.blocks)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Detected | None:  # noqa: ARG003
        """Know the names of BasicSR, and those of mmsr before it."""
        if "LRconv.weight" in tensors:
            return None
        renamed = key_names.renamed(tensors, _MMSR)
        if not {"conv_first.weight", "body.0.conv1.weight", "upconv1.weight", "conv_hr.weight"} <= set(renamed):
            return None
        features, channels = renamed["conv_first.weight"].shape[:2]
        spec = cls(features=features, blocks=key_names.count(renamed, r"body\.(\d+)\."))
        return Detected(spec, (key_names.pixel_shuffles(renamed, r"upconv\d\.weight"),), channels, renamed)


class RankSrResNetSpec(_Spec):
    """SRResNet without batch norm, as RankSRGAN has it: ReLU, and a skip of features in place of one of the image."""

    title: ClassVar[str] = "SRResNet (RankSRGAN)"
    paper: ClassVar[str] = "Zhang et al., RankSRGAN, ICCV 2019"
    parameters: ClassVar[int] = 1_554_499

    kind: Literal["rank_srresnet"] = "rank_srresnet"

    def _make(self, scale: int, channels: int) -> nn.Module:
        return RankSrResNet(scale, channels, features=self.features, blocks=self.blocks)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Detected | None:  # noqa: ARG003
        """Know the published names."""
        if not {"conv_first.weight", "recon_trunk.0.conv1.weight", "LRconv.weight", "upconv1.weight"} <= set(tensors):
            return None
        features, channels = tensors["conv_first.weight"].shape[:2]
        spec = cls(features=features, blocks=key_names.count(tensors, r"recon_trunk\.(\d+)\."))
        return Detected(spec, (key_names.pixel_shuffles(tensors, r"upconv\d\.weight"),), channels, dict(tensors))


class _PlainResNet(SrNetwork):
    """What both have: `first`, residual blocks, stages of upscaling, two convolutions; under the names of each.

    Weights start He normal times 0.1 and biases 0, as there.

    Args:
        scale: 2, 3 or 4.
        channels: 3 for RGB, 1 for gray.
        features: channels of the body.
        blocks: residual blocks of the body.
    """

    trunk: ClassVar[str]
    last_but_one: ClassVar[str]

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int) -> None:
        super().__init__(scale, channels)
        self.conv_first = conv(channels, features)
        self.add_module(self.trunk, nn.Sequential(*(_Block(features) for _ in range(blocks))))
        self.stages, self.factor = 2 if scale == 4 else 1, 3 if scale == 3 else 2
        for n in range(self.stages):
            self.add_module(f"upconv{n + 1}", conv(features, features * self.factor**2))
        self.add_module(self.last_but_one, conv(features, features))
        self.conv_last = Float32Conv2d.like(conv(features, channels))
        he_normal_tenth(self)

    def _first(self, x: Tensor) -> Tensor:
        return self.conv_first(x.to(self.conv_first.weight.dtype))

    def _body(self, z: Tensor) -> Tensor:
        return self.get_submodule(self.trunk)(z)

    def _image(self, z: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        for n in range(self.stages):
            z = activation(functional.pixel_shuffle(self.get_submodule(f"upconv{n + 1}")(z), self.factor))
        return self.conv_last(activation(self.get_submodule(self.last_but_one)(z)))


class MsrResNet(_PlainResNet):
    """BasicSR's: `y = last(lrelu(hr(stages(body(lrelu(first(x))))))) + bilinear(x)`, a stage `lrelu(shuffle(conv))`.

    The leaky ReLU has a slope of 0.1.
    """

    trunk: ClassVar[str] = "body"
    last_but_one: ClassVar[str] = "conv_hr"

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        image = self._image(self._body(_lrelu(self._first(x))), _lrelu)
        base = x.to(torch.promote_types(x.dtype, torch.float32))
        return image + functional.interpolate(base, scale_factor=self.scale, mode="bilinear", align_corners=False)


class RankSrResNet(_PlainResNet):
    """RankSRGAN's: `y = last(relu(hr(stages(h + lr(trunk(h))))))` with `h = first(x)`, a stage `relu(shuffle(conv))`.

    `LRconv` starts as PyTorch's own, as there.
    """

    trunk: ClassVar[str] = "recon_trunk"
    last_but_one: ClassVar[str] = "HRconv"

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int) -> None:
        super().__init__(scale, channels, features=features, blocks=blocks)
        self.LRconv = conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        first = self._first(x)
        return self._image(first + self.LRconv(self._body(first)), torch.relu)


class _Block(nn.Module):
    """`x + conv(relu(conv(x)))`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(features, features), conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)
