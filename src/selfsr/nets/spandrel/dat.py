"""DAT (Chen et al., "Dual Aggregation Transformer for Image Super-Resolution", ICCV 2023)."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, model_validator
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.checks import Depths, DropRate, check_heads, check_integer_channels
from selfsr.nets.spandrel.fixes import end_in_float32, ignore_meshgrid_warning


class DatSpec(NetworkSpec):
    """DAT, alternating attention over windows and channels; `split_px=[8, 16], expansion=2` is the authors' DAT-S."""

    title: ClassVar[str] = "DAT"
    paper: ClassVar[str] = "Chen et al., ICCV 2023"
    convolutional: ClassVar[bool] = False

    kind: Literal["dat"] = "dat"
    features: int = Field(default=180, ge=32, description="channels of the body (embed_dim)")
    depths: Depths = Field(default=(6,) * 6, description="transformer blocks in each group (depth)")
    heads: Depths = Field(default=(6,) * 6, description="attention heads in each group, even (num_heads)")
    split_px: tuple[Literal[2, 4, 8, 16, 32], Literal[2, 4, 8, 16, 32]] = Field(
        default=(8, 32), description="the two sides of the attention window (split_size)"
    )
    expansion: PositiveFloat = Field(
        default=4.0,
        description="hidden channels of each MLP, as a multiple of its input channels (expansion_factor)",
    )
    drop_path: DropRate = Field(
        default=0.1,
        description="stochastic depth: probability that the last block is skipped in training (drop_path_rate)",
    )
    upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = Field(
        default="pixelshuffle", description="pixelshuffle in stages, or in one step (direct), as in the light model"
    )
    residual_conv: Literal["1conv", "3conv"] = Field(
        default="1conv", description="convolutions that end each group; 3conv saves parameters (resi_connection)"
    )

    @property
    def minimum_px(self) -> int:
        """Spandrel's minimum; smaller images would be mostly padding."""
        return 16

    @property
    def minimum_batch(self) -> int:
        """Two, because batch norm in the attention gets one value per image and channel."""
        return 2

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        check_heads(self.features, self.depths, self.heads)
        check_integer_channels("expansion", self.features, self.expansion)
        if any(heads % 2 for heads in self.heads):
            raise ValueError(f"heads must be even, because two windows share them, got {list(self.heads)}")
        if round(self.features * self.expansion) % 2:
            raise ValueError(f"features x expansion must be even, got {self.features} x {self.expansion}")
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        from spandrel.architectures.DAT import DAT

        from selfsr.nets.spandrel.attention import fuse_attention

        with ignore_meshgrid_warning():
            net = DAT(
                in_chans=channels,
                embed_dim=self.features,
                split_size=list(self.split_px),
                depth=list(self.depths),
                num_heads=list(self.heads),
                expansion_factor=self.expansion,
                drop_path_rate=self.drop_path,
                upscale=scale,
                upsampler=self.upsampler,
                resi_connection=self.residual_conv,
            )
        last = "upsample.0" if self.upsampler == "pixelshuffledirect" else "conv_last"
        return end_in_float32(fuse_attention(net), last)
