"""RealPLKSR, neosr's variant of PLKSR (Lee et al., "Partial Large Kernel CNNs for Efficient SR", 2024)."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.checks import DropRate, check_integer_channels
from selfsr.nets.spandrel.fixes import end_in_float32


class RealPlksrSpec(NetworkSpec):
    """RealPLKSR, with partial large kernels; only RGB. `blocks=12, kernel_px=13, attention=False` is neosr's S."""

    title: ClassVar[str] = "RealPLKSR"
    paper: ClassVar[str] = "Lee et al., arXiv:2404.11848, and neosr"
    convolutional: ClassVar[bool] = True

    kind: Literal["realplksr"] = "realplksr"
    features: PositiveInt = Field(default=64, description="channels of the body (dim)")
    blocks: PositiveInt = Field(default=28, description="blocks of the body (n_blocks)")
    kernel_px: int = Field(default=17, ge=3, description="side of the large kernel, odd (kernel_size)")
    split_ratio: float = Field(
        default=0.25, gt=0, le=1, description="fraction of the channels that the large kernel convolves"
    )
    attention: bool = Field(default=True, description="element-wise attention in each block (use_ea)")
    dropout: DropRate = Field(
        default=0.0, description="fraction of channels that is dropped before the last layer in training"
    )
    layer_norm: bool = Field(
        default=False, description="layer norm at the start of each block in place of group norm at its end"
    )
    dysample: bool = Field(
        default=False, description="upscale by DySample, a learned sampling, in place of pixel shuffle"
    )

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """Only RGB."""
        return (3,)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.kernel_px % 2 == 0:
            raise ValueError(f"kernel_px must be odd, got {self.kernel_px}")
        if not self.layer_norm and self.features % 4:
            raise ValueError(f"features must be a multiple of 4, the groups of the norm, got {self.features}")
        check_integer_channels("split_ratio", self.features, self.split_ratio)
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:  # noqa: ARG002 - always RGB
        from spandrel.architectures.PLKSR import RealPLKSR

        net = RealPLKSR(
            dim=self.features,
            n_blocks=self.blocks,
            upscaling_factor=scale,
            kernel_size=self.kernel_px,
            split_ratio=self.split_ratio,
            use_ea=self.attention,
            dropout=self.dropout,
            dysample=self.dysample,
            layer_norm=self.layer_norm,
        )
        last = f"feats.{len(net.feats) - 1}"
        return end_in_float32(net, last, *(["to_img.end_conv"] if self.dysample else []))
