"""RRDB, the generator of ESRGAN, by spandrel's class, with the authors' initialization."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.blocks import he_normal_tenth
from selfsr.nets.spandrel.fixes import end_in_float32


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
        from spandrel.architectures.__arch_helpers.block import ResidualDenseBlock_5C
        from spandrel.architectures.ESRGAN import ESRGAN

        net = ESRGAN(
            in_nc=channels * self.unshuffle**2,
            out_nc=channels,
            num_filters=self.features,
            num_blocks=self.blocks,
            scale=scale * self.unshuffle,
            shuffle_factor=self.unshuffle if self.unshuffle > 1 else None,
        )
        for block in net.modules():
            if isinstance(block, ResidualDenseBlock_5C):
                he_normal_tenth(block)
        return end_in_float32(net, f"model.{len(net.model) - 1}")
