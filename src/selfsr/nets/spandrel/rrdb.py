"""RRDB, the generator of ESRGAN (Wang et al., "ESRGAN", ECCVW 2018)."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.blocks import init_he_normal_tenth
from selfsr.nets.spandrel.fixes import end_in_float32


class RrdbSpec(NetworkSpec):
    """RRDB, the generator of ESRGAN, BSRGAN and Real-ESRGAN."""

    title: ClassVar[str] = "ESRGAN (RRDB)"
    paper: ClassVar[str] = "Wang et al., ECCVW 2018"
    convolutional: ClassVar[bool] = True

    kind: Literal["rrdb", "esrgan"] = "rrdb"
    features: PositiveInt = Field(default=64, description="channels of the trunk (num_feat, nf)")
    blocks: PositiveInt = Field(default=23, description="residual-in-residual dense blocks (num_block, nb)")
    unshuffle: Literal[1, 2, 4] = Field(
        default=1,
        description="factor of a pixel unshuffle at the input; the network then upscales by as much more. This is 4 "
        "or 16 times faster; Real-ESRGAN uses 2 for x2",
    )

    @property
    def scales(self) -> tuple[int, ...]:
        """Powers of two; other programs read no x3 files."""
        return (2, 4, 8)

    @property
    def minimum_px(self) -> int:
        """The smallest side that can be padded by reflection to a multiple of `unshuffle`."""
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
        # The authors' initialization, which spandrel's class for inference lacks.
        for block in net.modules():
            if isinstance(block, ResidualDenseBlock_5C):
                init_he_normal_tenth(block)
        return end_in_float32(net, f"model.{len(net.model) - 1}")
