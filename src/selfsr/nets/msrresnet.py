"""SRResNet without batch norm, in BasicSR's and RankSRGAN's variants (Wang et al., ESRGAN; Zhang et al., RankSRGAN)."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv, init_he_normal_tenth
from selfsr.nets.layers import Float32Conv2d

_SLOPE = 0.1
# Names in mmsr, BasicSR's predecessor, and BasicSR's.
_MMSR = [(r"recon_trunk\.", "body."), (r"HRconv\.", "conv_hr.")]


class _PlainResNetSpec(NetworkSpec):
    convolutional: ClassVar[bool] = True

    features: PositiveInt = Field(default=64, description="channels of the body (num_feat, nf)")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the body (num_block, nb)")

    @property
    def scales(self) -> tuple[int, ...]:
        """The published ones."""
        return (2, 3, 4)


class MsrResNetSpec(_PlainResNetSpec):
    """SRResNet without batch norm, as in BasicSR: it adds a residual to the bilinearly upscaled image."""

    title: ClassVar[str] = "MSRResNet"
    paper: ClassVar[str] = "Ledig et al., CVPR 2017, and BasicSR"

    kind: Literal["msrresnet"] = "msrresnet"

    def _make(self, scale: int, channels: int) -> nn.Module:
        return MsrResNet(scale, channels, features=self.features, blocks=self.blocks)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the names of BasicSR, and those of mmsr before it."""
        if "LRconv.weight" in tensors:
            return None
        renamed = key_names.rename_keys(tensors, _MMSR)
        if not {"conv_first.weight", "body.0.conv1.weight", "upconv1.weight", "conv_hr.weight"} <= set(renamed):
            return None
        features, channels = renamed["conv_first.weight"].shape[:2]
        spec = cls(features=features, blocks=key_names.count_layers(renamed, r"body\.(\d+)\."))
        return Detected(spec, (key_names.infer_pixel_shuffle(renamed, r"upconv\d\.weight"),), channels, renamed)


class RankSrResNetSpec(_PlainResNetSpec):
    """SRResNet without batch norm, as in RankSRGAN: ReLU, and a skip of features in place of one of the image."""

    title: ClassVar[str] = "SRResNet (RankSRGAN)"
    paper: ClassVar[str] = "Zhang et al., RankSRGAN, ICCV 2019"

    kind: Literal["rank_srresnet"] = "rank_srresnet"

    def _make(self, scale: int, channels: int) -> nn.Module:
        return RankSrResNet(scale, channels, features=self.features, blocks=self.blocks)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the published names."""
        if not {"conv_first.weight", "recon_trunk.0.conv1.weight", "LRconv.weight", "upconv1.weight"} <= set(tensors):
            return None
        features, channels = tensors["conv_first.weight"].shape[:2]
        spec = cls(features=features, blocks=key_names.count_layers(tensors, r"recon_trunk\.(\d+)\."))
        return Detected(spec, (key_names.infer_pixel_shuffle(tensors, r"upconv\d\.weight"),), channels, dict(tensors))


class _PlainResNet(SrNetwork):
    """Base of both variants: a convolution, residual blocks, upscaling stages, two convolutions.

    Subclasses give the layers their published names. Weights start as He normal times 0.1 and biases at 0, as there.

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
        self.conv_first: nn.Conv2d = conv(channels, features)
        self.add_module(self.trunk, nn.Sequential(*(_PlainResidualBlock(features) for _ in range(blocks))))
        self.stages, self.factor = 2 if scale == 4 else 1, 3 if scale == 3 else 2
        for n in range(self.stages):
            self.add_module(f"upconv{n + 1}", conv(features, features * self.factor**2))
        self.add_module(self.last_but_one, conv(features, features))
        self.conv_last: Float32Conv2d = Float32Conv2d.like(conv(features, channels))
        init_he_normal_tenth(self)

    def _extract_features(self, x: Tensor) -> Tensor:
        return self.conv_first(x.to(self.conv_first.weight.dtype))

    def _run_trunk(self, z: Tensor) -> Tensor:
        return self.get_submodule(self.trunk)(z)

    def _reconstruct(self, z: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        for n in range(self.stages):
            z = activation(functional.pixel_shuffle(self.get_submodule(f"upconv{n + 1}")(z), self.factor))
        return self.conv_last(activation(self.get_submodule(self.last_but_one)(z)))


class MsrResNet(_PlainResNet):
    """BasicSR's variant: `y = last(lrelu(hr(stages(body(lrelu(first(x))))))) + bilinear(x)`.

    A stage is `lrelu(shuffle(conv))`. The leaky ReLU has a slope of 0.1.
    """

    trunk: ClassVar[str] = "body"
    last_but_one: ClassVar[str] = "conv_hr"

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        image = self._reconstruct(self._run_trunk(_lrelu(self._extract_features(x))), _lrelu)
        base = x.to(torch.promote_types(x.dtype, torch.float32))
        return image + functional.interpolate(base, scale_factor=self.scale, mode="bilinear", align_corners=False)


class RankSrResNet(_PlainResNet):
    """RankSRGAN's variant: `y = last(relu(hr(stages(h + lr(trunk(h))))))` with `h = first(x)`.

    A stage is `relu(shuffle(conv))`. `LRconv` has PyTorch's default initialization, as there.
    """

    trunk: ClassVar[str] = "recon_trunk"
    last_but_one: ClassVar[str] = "HRconv"

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int) -> None:
        super().__init__(scale, channels, features=features, blocks=blocks)
        self.LRconv: nn.Conv2d = conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        first = self._extract_features(x)
        return self._reconstruct(first + self.LRconv(self._run_trunk(first)), torch.relu)


class _PlainResidualBlock(nn.Module):
    """Compute `x + conv(relu(conv(x)))`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(features, features), conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)
