"""SwinIR (Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021)."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.checks import Depths, DropRate, check_heads, check_integer_channels
from selfsr.nets.spandrel.fixes import end_in_float32, ignore_meshgrid_warning


class SwinIrSpec(NetworkSpec):
    """SwinIR; the defaults are the medium model of classical super-resolution.

    The authors' lightweight model is `features=60, depths=[6, 6, 6, 6], heads=[6, 6, 6, 6],
    upsampler=pixelshuffledirect`; their real-world model has `upsampler=nearest+conv`.
    """

    title: ClassVar[str] = "SwinIR"
    paper: ClassVar[str] = "Liang et al., ICCVW 2021"
    convolutional: ClassVar[bool] = False

    kind: Literal["swinir"] = "swinir"
    features: PositiveInt = Field(default=180, description="channels of the body (embed_dim)")
    depths: Depths = Field(default=(6,) * 6, description="transformer blocks in each group")
    heads: Depths = Field(default=(6,) * 6, description="attention heads in each group (num_heads)")
    window_px: int = Field(default=8, ge=2, le=32, description="side of the attention window (window_size)")
    mlp_ratio: PositiveFloat = Field(
        default=2.0, description="hidden channels of each MLP, as a multiple of its input channels (mlp_ratio)"
    )
    drop_path: DropRate = Field(
        default=0.1,
        description="stochastic depth: probability that the last block is skipped in training (drop_path_rate)",
    )
    upsampler: Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"] = Field(
        default="pixelshuffle",
        description="classical; lightweight, in one step; or real-world, without checkerboard artifacts",
    )
    residual_conv: Literal["1conv", "3conv"] = Field(
        default="1conv", description="convolutions that end each group; 3conv saves parameters (resi_connection)"
    )

    @property
    def scales(self) -> tuple[int, ...]:
        """All; only powers of two with nearest+conv, which doubles the image."""
        return (2, 4, 8) if self.upsampler == "nearest+conv" else (2, 3, 4, 8)

    @property
    def minimum_px(self) -> int:
        """One window; less would be mostly padding."""
        return self.window_px

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        check_heads(self.features, self.depths, self.heads)
        check_integer_channels("mlp_ratio", self.features, self.mlp_ratio)
        if self.window_px == 7:
            raise ValueError("window_px must not be 7, because files with it are read as JPEG models of range 255")
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        from spandrel.architectures.SwinIR import SwinIR

        from selfsr.nets.spandrel.attention import fuse_attention

        with ignore_meshgrid_warning():
            net = SwinIR(
                in_chans=channels,
                embed_dim=self.features,
                depths=list(self.depths),
                num_heads=list(self.heads),
                window_size=self.window_px,
                mlp_ratio=self.mlp_ratio,
                drop_path_rate=self.drop_path,
                upscale=scale,
                upsampler=self.upsampler,
                resi_connection=self.residual_conv,
            )
        last = "upsample.0" if self.upsampler == "pixelshuffledirect" else "conv_last"
        return end_in_float32(fuse_attention(net), last)
