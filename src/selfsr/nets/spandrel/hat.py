"""HAT (Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023)."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.checks import Depths, DropRate, check_heads, check_integer_channels
from selfsr.nets.spandrel.fixes import end_in_float32, ignore_meshgrid_warning


class HatSpec(NetworkSpec):
    """HAT, attention over windows, overlapping windows and channels; HAT-S is `features=144, compress_ratio=24`."""

    title: ClassVar[str] = "HAT"
    paper: ClassVar[str] = "Chen et al., CVPR 2023"
    convolutional: ClassVar[bool] = False

    kind: Literal["hat"] = "hat"
    features: PositiveInt = Field(default=180, description="channels of the body (embed_dim)")
    depths: Depths = Field(default=(6,) * 6, description="attention blocks in each group")
    heads: Depths = Field(default=(6,) * 6, description="attention heads in each group (num_heads)")
    window_px: int = Field(default=16, ge=2, le=32, description="side of the attention window (window_size)")
    compress_ratio: PositiveInt = Field(
        default=3, description="channel reduction in the convolution branch (compress_ratio)"
    )
    squeeze_factor: PositiveInt = Field(
        default=30, description="channel reduction in the bottleneck of the channel attention (squeeze_factor)"
    )
    overlap_ratio: float = Field(default=0.5, ge=0, le=1, description="overlap of windows, as a fraction of a window")
    mlp_ratio: PositiveFloat = Field(
        default=2.0, description="hidden channels of each MLP, as a multiple of its input channels (mlp_ratio)"
    )
    drop_path: DropRate = Field(
        default=0.1,
        description="stochastic depth: probability that the last block is skipped in training (drop_path_rate)",
    )

    @property
    def minimum_px(self) -> int:
        """One window; less would be mostly padding."""
        return self.window_px

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        check_heads(self.features, self.depths, self.heads)
        check_integer_channels("mlp_ratio", self.features, self.mlp_ratio)
        for name in ("compress_ratio", "squeeze_factor"):
            if getattr(self, name) > self.features:
                raise ValueError(f"{name} must not exceed features {self.features}, got {getattr(self, name)}")
        if int(self.window_px * self.overlap_ratio) % 2:
            raise ValueError(
                f"window_px x overlap_ratio must be an even number of pixels, "
                f"got {self.window_px} x {self.overlap_ratio}"
            )
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        from spandrel.architectures.HAT import HAT

        from selfsr.nets.spandrel.attention import fuse_attention

        with ignore_meshgrid_warning():
            net = HAT(
                in_chans=channels,
                embed_dim=self.features,
                depths=self.depths,
                num_heads=self.heads,
                window_size=self.window_px,
                compress_ratio=self.compress_ratio,
                squeeze_factor=self.squeeze_factor,
                overlap_ratio=self.overlap_ratio,
                mlp_ratio=self.mlp_ratio,
                drop_path_rate=self.drop_path,
                upscale=scale,
            )
        return end_in_float32(fuse_attention(net), "conv_last")
