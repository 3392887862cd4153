"""What every discriminator of a recipe states: its options, the crops that it can judge, and how to build it."""

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets.discriminators.layers import SpectralConv2d
from selfsr.spec import Spec

# KAIR's orthogonal start: gain of the weights, and the range that the scales of batch norm are drawn from.
_ORTHOGONAL_GAIN = 0.2
_NORM_SCALES = (0.1, 1.0)


class DiscriminatorNetworkSpec(Spec):
    """A discriminator as a recipe spells it out; subclasses add `kind`, their options, `_fits` and `_make`.

    Attributes:
        title: how people call the network.
        paper: where it was published.
        one_size: it judges crops of the size that it was built for, and no other.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    one_size: ClassVar[bool] = False

    features: PositiveInt = Field(default=64, description="channels of the first layer (num_feat, ndf)")
    init: Literal["default", "orthogonal"] = Field(
        default="default",
        description="as its authors start it, or with orthogonal weights of gain 0.2 and biases of 0, as BSRGAN's",
    )

    @model_validator(mode="after")
    def _keeps_its_signal(self) -> Self:
        if self.init == "orthogonal" and getattr(self, "norm", None) == "none":
            raise ValueError(
                f"init must be default with norm none, because a gain of {_ORTHOGONAL_GAIN} a layer leaves no signal"
            )
        return self

    def build(self, channels: int, crop_px: int) -> nn.Module:
        """Build the discriminator, initialized and ready to be trained.

        Args:
            channels: 1 for gray or 3 for RGB.
            crop_px: the side of the high-resolution crops that it will see.

        Returns:
            A module in training mode that takes float `[N, channels, crop_px, crop_px]` in [0, 1] to float32 logits,
            also under autocast: `[N, 1]`, or a map `[N, 1, h, w]`. Large is real.

        Raises:
            InputError: no such discriminator can be built for crops of this size.
        """
        if crop_problem := self._misfit(crop_px):
            raise InputError(
                f"discriminator {self.title}: {crop_problem}, got a crop of {crop_px} px; change the crop or the discriminator."
            )
        discriminator = self._make(channels, crop_px)
        if self.init == "orthogonal":
            with torch.no_grad():
                _start_orthogonal(discriminator)
        return discriminator

    def crop_problem(self, crop_px: int) -> str:
        """Say which crops fit, if one of `crop_px` does not, as the start of a sentence; empty if it does."""
        return self._misfit(crop_px)

    def _misfit(self, crop_px: int) -> str:
        """Say which crops fit, if this one does not, as the start of a sentence; empty if it does."""
        raise NotImplementedError

    def _make(self, channels: int, crop_px: int) -> nn.Module:
        raise NotImplementedError


def normalized(conv: nn.Conv2d, norm: str) -> list[nn.Module]:
    """Return a convolution and the norm behind it, or around it for "spectral"; "none" leaves it alone."""
    around: dict[str, Callable[[], list[nn.Module]]] = {
        "none": lambda: [conv],
        "batch": lambda: [conv, nn.BatchNorm2d(conv.out_channels)],
        "instance": lambda: [conv, nn.InstanceNorm2d(conv.out_channels)],
        "spectral": lambda: [SpectralConv2d(conv)],
    }
    return around[norm]()


def _start_orthogonal(discriminator: nn.Module) -> None:
    for module in discriminator.modules():
        if isinstance(module, SpectralConv2d):
            nn.init.orthogonal_(module.weight_orig, _ORTHOGONAL_GAIN)
            module.estimate()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, _ORTHOGONAL_GAIN)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, *_NORM_SCALES)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
