"""EDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017).

Written under the key names of the published checkpoints (`head.0`, `body.3.body.0`, `tail.0.2`, ...) and with
their value range of 0 to 255 inside, so those checkpoints load; images go in and come out in [0, 1].
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import ResidualBlock, conv, upsampler
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, MeanShift

# The authors' network of 256 channels scales its residuals, their smaller one does not; the tensors do not tell.
_WIDE_FEATURES, _WIDE_RES_SCALE = 256, 0.1
# EDSR as BasicSR names it, and the authors' names.
_BASICSR = (
    (r"conv_first\.", "head.0."),
    (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
    (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
    (r"conv_after_body\.", "body.{blocks}."),
    (r"upsample\.", "tail.0."),
    (r"conv_last\.", "tail.1."),
)


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

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Detected | None:
        """Know the authors' names and BasicSR's, of either value range."""
        if {"conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight"} <= set(tensors):
            blocks = str(key_names.count(tensors, r"body\.(\d+)\."))
            tensors = key_names.renamed(tensors, [(old, new.replace("{blocks}", blocks)) for old, new in _BASICSR])
        if not {"head.0.weight", "body.0.body.0.weight", "tail.0.0.weight", "tail.1.weight"} <= set(tensors):
            return None
        features, channels = tensors["head.0.weight"].shape[:2]
        res_scale = float(said.get("res_scale", _WIDE_RES_SCALE if features >= _WIDE_FEATURES else 1.0))
        blocks = key_names.count(tensors, r"body\.(\d+)\.body\.")
        return Detected(
            cls(features=features, blocks=blocks, res_scale=res_scale),
            (key_names.pixel_shuffles(tensors, r"tail\.0\.\d+\.weight"),),
            channels,
            key_names.of_range_255(tensors),
        )


class Edsr(SrNetwork):
    """The network of EDSR: `y = shift(tail(h + body(h)))` with `h = head(unshift(x))`.

    Under autocast both mean shifts and the last convolution compute in float32. In bfloat16 a brightness of 128
    to 255 is a whole number: the small fitted EDSR of tests/nets/test_edsr.py is off from its float32 self by
    0.29 gray levels (root mean square, 1.2 at worst) where all of it runs in bfloat16, and by 0.10 (0.4) with
    float32 ends. The ends are 0.5 % of the multiplications of the x2 baseline.

    Weights start as PyTorch initializes a convolution, which is what the authors' code does.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels of the body.
        blocks: residual blocks of the body.
        res_scale: what each residual is multiplied by.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int, res_scale: float) -> None:
        super().__init__(scale, channels)
        self.res_scale = res_scale
        self.sub_mean = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean = MeanShift(channels, 1, VALUE_RANGE)
        self.head = nn.Sequential(conv(channels, features))
        residual = (ResidualBlock(features, res_scale=res_scale) for _ in range(blocks))
        self.body = nn.Sequential(*residual, conv(features, features))
        self.tail = nn.Sequential(upsampler(scale, features), Float32Conv2d(features, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shifted = self.sub_mean(x * VALUE_RANGE).to(self.head[0].weight.dtype)
        features = self.head(shifted)
        return self.add_mean(self.tail(features + self.body(features))) / VALUE_RANGE

    def file_metadata(self) -> dict[str, str]:
        """Return the residual scale."""
        return {"res_scale": repr(self.res_scale)}
