"""RCAN (Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", ECCV 2018)."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.layers import MeanShift
from selfsr.nets.spandrel.fixes import end_in_float32


class RcanSpec(NetworkSpec):
    """RCAN, residual channel attention; its internal range is 0 to 255, for RGB minus DIV2K's mean."""

    title: ClassVar[str] = "RCAN"
    paper: ClassVar[str] = "Zhang et al., ECCV 2018"
    convolutional: ClassVar[bool] = True

    kind: Literal["rcan"] = "rcan"
    features: PositiveInt = Field(default=64, description="channels of the body (n_feats)")
    groups: PositiveInt = Field(default=10, description="residual groups (n_resgroups)")
    blocks: PositiveInt = Field(default=20, description="attention blocks in each group (n_resblocks)")
    reduction: PositiveInt = Field(
        default=16, description="channel reduction in the bottleneck of the channel attention (reduction)"
    )

    @model_validator(mode="after")
    def _check_options(self) -> Self:
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
            # The authors' mean shifts are trained by mistake: `requires_grad` is set on the module, without effect.
            net.set_submodule("sub_mean", MeanShift(channels, -1, net.rgb_range))
            net.set_submodule("add_mean", MeanShift(channels, 1, net.rgb_range))
        # The authors' forward pass multiplies its input by 255 in place.
        net.register_forward_pre_hook(_clone_input)
        return end_in_float32(net, "tail.1")


def _clone_input(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:  # noqa: ARG001 - a hook's signature
    return (args[0].clone(),)
