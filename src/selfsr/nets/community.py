"""The networks that the community trains, on the classes by which spandrel and all tools on it read their files.

The defaults are the authors' published settings. Options that a weights file does not show (and spandrel would
therefore guess) stay at the authors' values, so whatever is trained here opens elsewhere as it was. Names in
brackets are the authors' own for an option.

Spandrel is imported when a network is built, not when a recipe is read.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from selfsr.nets.base import NetworkSpec

_Depths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
_DropRate = Annotated[float, Field(ge=0, lt=1)]


class RrdbSpec(NetworkSpec):
    """RRDB, the generator of ESRGAN, BSRGAN and Real-ESRGAN."""

    title: ClassVar[str] = "ESRGAN (RRDB)"
    paper: ClassVar[str] = "Wang et al., ECCVW 2018"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 16_697_987

    kind: Literal["rrdb", "esrgan"] = "rrdb"
    features: PositiveInt = Field(default=64, description="channels of the trunk (num_feat, nf)")
    blocks: PositiveInt = Field(default=23, description="residual-in-residual dense blocks (num_block, nb)")
    unshuffle: Literal[1, 2, 4] = Field(
        default=1,
        description="fold this many pixels a side into channels first and upscale by as much more: four or sixteen "
        "times faster; Real-ESRGAN takes 2 for x2",
    )

    @property
    def scales(self) -> tuple[int, ...]:
        """Powers of two: of three there is no file that others read."""
        return (2, 4, 8)

    @property
    def minimum_px(self) -> int:
        """What can be mirrored up to a multiple of `unshuffle`."""
        return max(2, self.unshuffle)

    def _make(self, scale: int, channels: int) -> nn.Module:
        from selfsr.nets import trainable

        return trainable.rrdb(self, scale, channels)


class SwinIrSpec(NetworkSpec):
    """SwinIR; the defaults are the medium model of classical super-resolution.

    The authors' lightweight model is `features=60, depths=[6, 6, 6, 6], heads=[6, 6, 6, 6],
    upsampler=pixelshuffledirect`; their real-world model has `upsampler=nearest+conv`.
    """

    title: ClassVar[str] = "SwinIR"
    paper: ClassVar[str] = "Liang et al., ICCVW 2021"
    convolutional: ClassVar[bool] = False
    parameters: ClassVar[int] = 11_900_199

    kind: Literal["swinir"] = "swinir"
    features: PositiveInt = Field(default=180, description="channels of the body (embed_dim)")
    depths: _Depths = Field(default=(6,) * 6, description="transformer blocks in each group")
    heads: _Depths = Field(default=(6,) * 6, description="attention heads in each group (num_heads)")
    window_px: int = Field(default=8, ge=2, le=32, description="side of the attention window (window_size)")
    mlp_ratio: PositiveFloat = Field(default=2.0, description="hidden channels per channel in each block's MLP")
    drop_path: _DropRate = Field(default=0.1, description="how often the last block is skipped in training")
    upsampler: Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"] = Field(
        default="pixelshuffle", description="classical, lightweight (one step), or real-world (no checkerboards)"
    )
    residual_conv: Literal["1conv", "3conv"] = Field(
        default="1conv", description="convolutions that end each group; 3conv saves parameters (resi_connection)"
    )

    @property
    def scales(self) -> tuple[int, ...]:
        """All, but nearest+conv only doubles."""
        return (2, 4, 8) if self.upsampler == "nearest+conv" else (2, 3, 4, 8)

    @property
    def minimum_px(self) -> int:
        """One window; less would be mostly mirror image."""
        return self.window_px

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_heads(self.features, self.depths, self.heads)
        _check_share("mlp_ratio", self.features, self.mlp_ratio)
        if self.window_px == 7:
            raise ValueError("window_px must not be 7, because files with it are read as JPEG models of range 255")
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        from selfsr.nets import trainable

        return trainable.swinir(self, scale, channels)


class RcanSpec(NetworkSpec):
    """RCAN, residual channel attention; its value range inside is 0 to 255, for RGB with DIV2K's mean taken off."""

    title: ClassVar[str] = "RCAN"
    paper: ClassVar[str] = "Zhang et al., ECCV 2018"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 15_592_355

    kind: Literal["rcan"] = "rcan"
    features: PositiveInt = Field(default=64, description="channels of the body (n_feats)")
    groups: PositiveInt = Field(default=10, description="residual groups (n_resgroups)")
    blocks: PositiveInt = Field(default=20, description="attention blocks in each group (n_resblocks)")
    reduction: PositiveInt = Field(default=16, description="channels per channel of the attention's bottleneck")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.features % self.reduction:
            raise ValueError(f"features must be a multiple of reduction {self.reduction}, got {self.features}")
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        from selfsr.nets import trainable

        return trainable.rcan(self, scale, channels)


class CompactSpec(NetworkSpec):
    """Compact (SRVGGNetCompact), Real-ESRGAN's small network for anime and video."""

    title: ClassVar[str] = "Compact (SRVGG)"
    paper: ClassVar[str] = "Wang et al., Real-ESRGAN, ICCVW 2021"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 621_424

    kind: Literal["compact"] = "compact"
    features: PositiveInt = Field(default=64, description="channels of the body (num_feat)")
    convs: PositiveInt = Field(default=16, description="convolutions of the body (num_conv)")

    def _make(self, scale: int, channels: int) -> nn.Module:
        from selfsr.nets import trainable

        return trainable.compact(self, scale, channels)


class SpanSpec(NetworkSpec):
    """SPAN, parameter-free attention; each of its convolutions is trained as four and run as one."""

    title: ClassVar[str] = "SPAN"
    paper: ClassVar[str] = "Wan et al., CVPRW 2024"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 1_840_488

    kind: Literal["span"] = "span"
    features: PositiveInt = Field(default=48, description="channels of the body (feature_channels)")
    subtract_mean: bool = Field(
        default=True,
        description="take DIV2K's mean off and multiply by 255 first, as the authors do; without it the network "
        "starts nearer to a picture, as most community models do (norm)",
    )

    @property
    def colours(self) -> tuple[int, ...]:
        """Grey has no such mean."""
        return (3,) if self.subtract_mean else (1, 3)

    def _make(self, scale: int, channels: int) -> nn.Module:
        from selfsr.nets import trainable

        return trainable.span(self, scale, channels)


class RealPlksrSpec(NetworkSpec):
    """RealPLKSR, neosr's variant of PLKSR (partial large kernels); `blocks=12, kernel_px=13, attention=False` is its S.

    RGB only.
    """

    title: ClassVar[str] = "RealPLKSR"
    paper: ClassVar[str] = "Lee et al., arXiv:2404.11848, and neosr"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 7_389_680

    kind: Literal["realplksr"] = "realplksr"
    features: PositiveInt = Field(default=64, description="channels of the body (dim)")
    blocks: PositiveInt = Field(default=28, description="blocks of the body (n_blocks)")
    kernel_px: int = Field(default=17, ge=3, description="side of the large kernel, odd (kernel_size)")
    split_ratio: float = Field(default=0.25, gt=0, le=1, description="share of the channels that see the large kernel")
    attention: bool = Field(default=True, description="element-wise attention in each block (use_ea)")
    dropout: _DropRate = Field(default=0.0, description="share of channels dropped before the last layer in training")
    layer_norm: bool = Field(
        default=False, description="layer norm at the head of each block in place of group norm at its end"
    )
    dysample: bool = Field(default=False, description="upscale by learnt sampling in place of a pixel shuffle")

    @property
    def colours(self) -> tuple[int, ...]:
        """RGB alone."""
        return (3,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kernel_px % 2 == 0:
            raise ValueError(f"kernel_px must be odd, got {self.kernel_px}")
        if not self.layer_norm and self.features % 4:
            raise ValueError(f"features must be a multiple of 4, the groups of the norm, got {self.features}")
        _check_share("split_ratio", self.features, self.split_ratio)
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        from selfsr.nets import trainable

        return trainable.realplksr(self, scale, channels)


class DatSpec(NetworkSpec):
    """DAT, attention over windows and over channels in turn; `split_px=[8, 16], expansion=2` is the authors' S."""

    title: ClassVar[str] = "DAT"
    paper: ClassVar[str] = "Chen et al., ICCV 2023"
    convolutional: ClassVar[bool] = False
    parameters: ClassVar[int] = 14_802_051

    kind: Literal["dat"] = "dat"
    features: int = Field(default=180, ge=32, description="channels of the body (embed_dim)")
    depths: _Depths = Field(default=(6,) * 6, description="transformer blocks in each group (depth)")
    heads: _Depths = Field(default=(6,) * 6, description="attention heads in each group, even (num_heads)")
    split_px: tuple[Literal[2, 4, 8, 16, 32], Literal[2, 4, 8, 16, 32]] = Field(
        default=(8, 32), description="the two sides of the attention window (split_size)"
    )
    expansion: PositiveFloat = Field(
        default=4.0, description="hidden channels per channel in each block's MLP (expansion_factor)"
    )
    drop_path: _DropRate = Field(default=0.1, description="how often the last block is skipped in training")
    upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = Field(
        default="pixelshuffle", description="in full, or in one step as in the light model"
    )
    residual_conv: Literal["1conv", "3conv"] = Field(
        default="1conv", description="convolutions that end each group; 3conv saves parameters (resi_connection)"
    )

    @property
    def minimum_px(self) -> int:
        """Spandrel's figure; smaller images would be mostly padding."""
        return 16

    @property
    def minimum_batch(self) -> int:
        """Two: the attention normalises one number per image and channel over the batch."""
        return 2

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_heads(self.features, self.depths, self.heads)
        _check_share("expansion", self.features, self.expansion)
        if any(heads % 2 for heads in self.heads):
            raise ValueError(f"heads must be even, because two windows share them, got {list(self.heads)}")
        if round(self.features * self.expansion) % 2:
            raise ValueError(f"features x expansion must be even, got {self.features} x {self.expansion}")
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        from selfsr.nets import trainable

        return trainable.dat(self, scale, channels)


class HatSpec(NetworkSpec):
    """HAT, windows, overlapping windows and channel attention; the authors' S has `features=144, compress_ratio=24`."""

    title: ClassVar[str] = "HAT"
    paper: ClassVar[str] = "Chen et al., CVPR 2023"
    convolutional: ClassVar[bool] = False
    parameters: ClassVar[int] = 20_772_507

    kind: Literal["hat"] = "hat"
    features: PositiveInt = Field(default=180, description="channels of the body (embed_dim)")
    depths: _Depths = Field(default=(6,) * 6, description="attention blocks in each group")
    heads: _Depths = Field(default=(6,) * 6, description="attention heads in each group (num_heads)")
    window_px: int = Field(default=16, ge=2, le=32, description="side of the attention window (window_size)")
    compress_ratio: PositiveInt = Field(default=3, description="channels per channel of the convolution branch")
    squeeze_factor: PositiveInt = Field(default=30, description="channels per channel of the attention's bottleneck")
    overlap_ratio: float = Field(default=0.5, ge=0, le=1, description="how far windows overlap, as a share of one")
    mlp_ratio: PositiveFloat = Field(default=2.0, description="hidden channels per channel in each block's MLP")
    drop_path: _DropRate = Field(default=0.1, description="how often the last block is skipped in training")

    @property
    def minimum_px(self) -> int:
        """One window; less would be mostly mirror image."""
        return self.window_px

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _check_heads(self.features, self.depths, self.heads)
        _check_share("mlp_ratio", self.features, self.mlp_ratio)
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
        from selfsr.nets import trainable

        return trainable.hat(self, scale, channels)


def _check_heads(features: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> None:
    if len(depths) != len(heads):
        raise ValueError(f"depths and heads must be of one length, got {len(depths)} and {len(heads)}")
    for number in heads:
        if features % number:
            raise ValueError(f"features must be a multiple of heads {number}, got {features}")


def _check_share(name: str, features: int, ratio: float) -> None:
    """Refuse a ratio that spandrel, which sees the whole number of channels alone, would not find again."""
    channels = int(features * ratio)
    if channels < 1 or channels != features * ratio or int(features * (channels / features)) != channels:
        raise ValueError(f"{name} must give a whole number of channels, got {features} x {ratio}")
