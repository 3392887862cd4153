"""EDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017).

Key names (`head.0`, `body.3.body.0`, `tail.0.2`, ...) and the internal range of 0 to 255 are those of the published
weights files, which therefore load without conversion. Input and output are in [0, 1].
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import ResidualBlock, build_upsampler, conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, MeanShift

# The authors' network of 256 channels scales its residuals, their smaller one does not; the tensors do not show it.
_WIDE_FEATURES, _WIDE_RES_SCALE = 256, 0.1
# BasicSR's names of EDSR's layers, and the authors'.
_BASICSR = (
    (r"conv_first\.", "head.0."),
    (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
    (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
    (r"conv_after_body\.", "body.{blocks}."),
    (r"upsample\.", "tail.0."),
    (r"conv_last\.", "tail.1."),
)


class EdsrSpec(NetworkSpec):
    """EDSR; the defaults are the authors' baseline, `features=256, blocks=32, res_scale=0.1` is the paper's network."""

    title: ClassVar[str] = "EDSR"
    paper: ClassVar[str] = "Lim et al., CVPRW 2017"
    convolutional: ClassVar[bool] = True

    kind: Literal["edsr"] = "edsr"
    features: PositiveInt = Field(default=64, description="channels of the body (n_feats)")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the body (n_resblocks)")
    res_scale: PositiveFloat = Field(
        default=1.0, description="factor of each residual; 0.1 keeps networks of 256 channels stable"
    )

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Edsr(scale, channels, features=self.features, blocks=self.blocks, res_scale=self.res_scale)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the authors' names and BasicSR's, in either value range."""
        if {"conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight"} <= set(tensors):
            blocks = str(key_names.count_layers(tensors, r"body\.(\d+)\."))
            tensors = key_names.rename_keys(tensors, [(old, new.replace("{blocks}", blocks)) for old, new in _BASICSR])
        if not {"head.0.weight", "body.0.body.0.weight", "tail.0.0.weight", "tail.1.weight"} <= set(tensors):
            return None
        features, channels = tensors["head.0.weight"].shape[:2]
        res_scale = _WIDE_RES_SCALE if features >= _WIDE_FEATURES else 1.0
        blocks = key_names.count_layers(tensors, r"body\.(\d+)\.body\.")
        return Detected(
            cls(features=features, blocks=blocks, res_scale=res_scale),
            (key_names.infer_pixel_shuffle(tensors, r"tail\.0\.\d+\.weight"),),
            channels,
            key_names.to_range_255(tensors),
        )


class Edsr(SrNetwork):
    """EDSR: `y = add_mean(tail(h + body(h)))` with `h = head(sub_mean(x))` (figure 3 of the paper).

    Under autocast, both mean shifts and the last convolution compute in float32, because bfloat16 rounds values of 128
    to 255 to integers. The small EDSR of tests/nets/test_edsr.py differs from its float32 output by 0.29 gray levels
    (root mean square; 1.2 at most) if all layers run in bfloat16, and by 0.10 (0.4) with these layers in float32. They
    are 0.5 % of the multiplications of the x2 baseline.

    Weights have PyTorch's default initialization, as in the authors' code.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels of the body.
        blocks: residual blocks of the body.
        res_scale: factor of each residual.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int, res_scale: float) -> None:
        super().__init__(scale, channels)
        self.res_scale = res_scale
        self.sub_mean: MeanShift = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean: MeanShift = MeanShift(channels, 1, VALUE_RANGE)
        self.head: nn.Sequential = nn.Sequential(conv(channels, features))
        residual = (ResidualBlock(features, res_scale=res_scale) for _ in range(blocks))
        self.body: nn.Sequential = nn.Sequential(*residual, conv(features, features))
        self.tail: nn.Sequential = nn.Sequential(
            build_upsampler(scale, features), Float32Conv2d(features, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shifted = self.sub_mean(x * VALUE_RANGE).to(self.head[0].weight.dtype)
        features = self.head(shifted)
        return self.add_mean(self.tail(features + self.body(features))) / VALUE_RANGE
