"""MDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017, section 3.3).

One network for several scales. Each scale has its own first blocks and upsampler around a common body. A training step
uses images of one scale.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import ResidualBlock, build_upsampler, conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, MeanShift

_Factors = Annotated[tuple[Literal[2, 3, 4, 8], ...], Field(min_length=1)]


class MdsrSpec(NetworkSpec):
    """MDSR, one network for several scales; the defaults are the authors' baseline, `blocks=80` is the paper's."""

    title: ClassVar[str] = "MDSR"
    paper: ClassVar[str] = "Lim et al., CVPRW 2017"
    convolutional: ClassVar[bool] = True
    multi_scale: ClassVar[bool] = True
    has_unused_parameters: ClassVar[bool] = True

    kind: Literal["mdsr"] = "mdsr"
    features: PositiveInt = Field(default=64, description="channels of the body (n_feats)")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the common body (n_resblocks)")
    factors: _Factors = Field(default=(2, 3, 4), description="the scales of the network, in the order of the file")

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if len(set(self.factors)) < len(self.factors):
            raise ValueError(f"factors must differ from each other, got {list(self.factors)}")
        return self

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales that the network has an upsampler for."""
        return self.factors

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Mdsr(scale, channels, features=self.features, blocks=self.blocks, factors=self.factors)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the authors' names."""
        if not {"pre_process.0.0.body.0.weight", "upsample.0.0.weight", "head.0.weight"} <= set(tensors):
            return None
        features, channels = tensors["head.0.weight"].shape[:2]
        branches = range(key_names.count_layers(tensors, r"upsample\.(\d+)\."))
        factors = tuple(key_names.infer_pixel_shuffle(tensors, rf"upsample\.{n}\.\d+\.weight") for n in branches)
        blocks = key_names.count_layers(tensors, r"body\.(\d+)\.body\.")
        spec = cls(features=features, blocks=blocks, factors=factors)  # pyright: ignore[reportArgumentType]
        return Detected(spec, factors, channels, key_names.to_range_255(tensors))


class Mdsr(SrNetwork):
    """MDSR: `y = add_mean(tail(up(z + body(z))))` with `z = pre(head(sub_mean(x)))`.

    Each scale has its own `pre` (two residual blocks of 5 x 5) and `up`. The scale is the argument of `forward` or, by
    default, the attribute `scale`, so that the network can replace one of a single scale.

    Args:
        scale: the scale by which `forward` upscales by default.
        channels: 3 for RGB, 1 for gray.
        features: channels of the body.
        blocks: residual blocks of the common body.
        factors: all scales.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int, factors: tuple[int, ...]) -> None:
        super().__init__(scale, channels)
        self.factors = factors
        self.sub_mean: MeanShift = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean: MeanShift = MeanShift(channels, 1, VALUE_RANGE)
        self.head: nn.Sequential = nn.Sequential(conv(channels, features))
        self.pre_process: nn.ModuleList = nn.ModuleList(
            nn.Sequential(ResidualBlock(features, 5), ResidualBlock(features, 5)) for _ in factors
        )
        self.body: nn.Sequential = nn.Sequential(
            *(ResidualBlock(features) for _ in range(blocks)), conv(features, features)
        )
        self.upsample: nn.ModuleList = nn.ModuleList(build_upsampler(factor, features) for factor in factors)
        self.tail: nn.Sequential = nn.Sequential(Float32Conv2d.like(conv(features, channels)))

    def forward(self, x: Tensor, scale: int | None = None) -> Tensor:
        """Upscale images by one of the scales.

        Args:
            x: `[N, C, h, w]` in [0, 1].
            scale: upscaling factor; by default the attribute `scale`.

        Returns:
            Float32 `[N, C, scale * h, scale * w]`, not clamped.

        Raises:
            InputError: the network was not built for this scale.
        """
        scale = self.scale if scale is None else scale
        if scale not in self.factors:
            known = ", ".join(map(str, self.factors))
            raise InputError(f"network MDSR: scale must be one of {known}, which it was built for, got {scale}.")
        branch = self.factors.index(scale)
        shifted = self.sub_mean(x * VALUE_RANGE).to(self.head[0].weight.dtype)
        features = self.pre_process[branch](self.head(shifted))
        features = self.upsample[branch](features + self.body(features))
        return self.add_mean(self.tail(features)) / VALUE_RANGE
