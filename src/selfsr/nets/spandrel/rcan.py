"""RCAN by spandrel's class, with frozen mean shifts."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.layers import MeanShift
from selfsr.nets.spandrel.fixes import end_in_float32


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
        from spandrel.architectures.RCAN import RCAN

        net = RCAN(
            scale=scale,
            n_resgroups=self.groups,
            n_resblocks=self.blocks,
            n_feats=self.features,
            n_colors=channels,
            reduction=self.reduction,
            norm=channels == 3,
        )
        if channels == 3:
            net.set_submodule("sub_mean", MeanShift(channels, -1, net.rgb_range))
            net.set_submodule("add_mean", MeanShift(channels, 1, net.rgb_range))
        net.register_forward_pre_hook(_copy_input)
        return end_in_float32(net, "tail.1")


def _copy_input(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:  # noqa: ARG001 - a hook's signature
    return (args[0].clone(),)
