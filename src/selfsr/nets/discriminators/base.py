"""The contract of a discriminator: its options in a recipe, the crops that it accepts, and how it is built."""

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets.discriminators.layers import SpectralConv2d
from selfsr.spec import Spec

# KAIR's orthogonal initialization: gain of the weights, and range of the batch norm scales, which are random.
_ORTHOGONAL_GAIN = 0.2
_NORM_SCALES = (0.1, 1.0)


class DiscriminatorNetworkSpec(Spec):
    """Base of a discriminator's options in a recipe. A subclass adds `kind`, its options, `crop_problem` and `_make`.

    Attributes:
        title: the network's name in messages.
        paper: where the network was published.
        fixed_size: it accepts only crops of the size that it was built for.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    fixed_size: ClassVar[bool] = False

    features: PositiveInt = Field(default=64, description="channels of the first layer (num_feat, ndf)")
    init: Literal["default", "orthogonal"] = Field(
        default="default",
        description="default: the authors' initialization; orthogonal: weights of gain 0.2 and biases 0, as in BSRGAN",
    )

    @model_validator(mode="after")
    def _check_init(self) -> Self:
        if self.init == "orthogonal" and getattr(self, "norm", None) == "none":
            raise ValueError(
                f"init must be default with norm none, because a gain of {_ORTHOGONAL_GAIN} a layer leaves no signal"
            )
        return self

    def build(self, channels: int, crop_px: int) -> nn.Module:
        """Build the discriminator with its initialization.

        Args:
            channels: 1 for gray or 3 for RGB.
            crop_px: side of the high-resolution crops that it will be trained with.

        Returns:
            A module in training mode that maps float `[N, channels, crop_px, crop_px]` in [0, 1] to logits `[N, 1]`, or
            to a map of them `[N, 1, h, w]`; float32 even under autocast. Large logits mean "real".

        Raises:
            InputError: the discriminator cannot be built for crops of this size.

        Example:
            >>> import torch
            >>> from selfsr.nets.discriminators.patch import PatchDiscriminatorSpec
            >>> discriminator = PatchDiscriminatorSpec(features=8).build(channels=3, crop_px=64)
            >>> discriminator(torch.rand(2, 3, 64, 64)).shape
            torch.Size([2, 1, 6, 6])
        """
        if crop_problem := self.crop_problem(crop_px):
            raise InputError(
                f"discriminator {self.title}: {crop_problem}, got a crop of {crop_px} px; "
                "change the crop or the discriminator."
            )
        discriminator = self._make(channels, crop_px)
        if self.init == "orthogonal":
            with torch.no_grad():
                _init_orthogonal(discriminator)
        return discriminator

    def crop_problem(self, crop_px: int) -> str:
        """Return which crops the discriminator expects, for a message, or "" if it accepts crops of `crop_px`."""
        raise NotImplementedError

    def _make(self, channels: int, crop_px: int) -> nn.Module:
        raise NotImplementedError


def add_norm(conv: nn.Conv2d, norm: str) -> list[nn.Module]:
    """Return a convolution and the norm after it; "spectral" wraps the convolution, "none" adds nothing."""
    layers: dict[str, Callable[[], list[nn.Module]]] = {
        "none": lambda: [conv],
        "batch": lambda: [conv, nn.BatchNorm2d(conv.out_channels)],
        "instance": lambda: [conv, nn.InstanceNorm2d(conv.out_channels)],
        "spectral": lambda: [SpectralConv2d(conv)],
    }
    return layers[norm]()


def _init_orthogonal(discriminator: nn.Module) -> None:
    for module in discriminator.modules():
        if isinstance(module, SpectralConv2d):
            nn.init.orthogonal_(module.weight_orig, _ORTHOGONAL_GAIN)
            module.update_estimate()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, _ORTHOGONAL_GAIN)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, *_NORM_SCALES)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
