"""The discriminator of SRGAN and ESRGAN: a VGG whose depth follows from the crop, with one logit for each image."""

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.nets.discriminators.base import DiscriminatorNetworkSpec
from selfsr.nets.discriminators.layers import SLOPE, Float32Linear

# Width of the last layer but one.
_HIDDEN = 100
# Published stages by crop, where they differ from the rule that the last map has a side of 3 to 5 px.
_PUBLISHED_STAGES = {296: 5}
_LAST_SIDE_PX = 3


class VggDiscriminatorSpec(DiscriminatorNetworkSpec):
    """ESRGAN's discriminator, with the published names and sizes for crops of 128, 192, 256 and 296 px."""

    title: ClassVar[str] = "VGG"
    paper: ClassVar[str] = "Ledig et al., CVPR 2017; Wang et al., ESRGAN, ECCVW 2018"
    fixed_size: ClassVar[bool] = True

    kind: Literal["vgg"] = "vgg"
    norm: Literal["batch", "none"] = Field(
        default="batch",
        description="batch norm, or none, which a gradient penalty needs; with none, convolutions have biases",
    )
    stages: PositiveInt | None = Field(
        default=None,
        description="number of halvings of the crop; by default to a side of 3 to 5 px (296 as published: 9 px)",
    )

    def crop_problem(self, crop_px: int) -> str:
        """Return the smallest crop that all stages can halve, if `crop_px` is smaller."""
        least = 2 * _LAST_SIDE_PX if self.stages is None else 2**self.stages
        option = "" if self.stages is None else f" with stages {self.stages}"
        return f"expected a crop of at least {least} px{option}" if crop_px < least else ""

    def _make(self, channels: int, crop_px: int) -> nn.Module:
        return VggDiscriminator(
            channels,
            crop_px,
            features=self.features,
            stages=self.stages or _count_stages(crop_px),
            norm=self.norm == "batch",
        )


class VggDiscriminator(nn.Module):
    """Stages of a 3x3 convolution and a 4x4 convolution of stride 2, then two linear layers.

    Channels double from stage to stage, up to eight times the first. Batch norm follows all convolutions except the
    first, leaky ReLU follows all. Names are BasicSR's. Weights have PyTorch's default initialization, as there.

    Args:
        channels: channels of the image.
        crop_px: side of the image, which determines the size of the first linear layer.
        features: channels of the first stage.
        stages: number of halvings of the image.
        norm: whether convolutions have batch norm.
    """

    def __init__(self, channels: int, crop_px: int, *, features: int, stages: int, norm: bool) -> None:
        super().__init__()
        self.crop_px: int = crop_px
        self.stages: int = stages
        self.norm: bool = norm
        inputs = channels
        for stage in range(stages):
            width = features * min(2**stage, 8)
            self.add_module(f"conv{stage}_0", nn.Conv2d(inputs, width, 3, 1, 1, bias=stage == 0 or not norm))
            self.add_module(f"conv{stage}_1", nn.Conv2d(width, width, 4, 2, 1, bias=not norm))
            if norm and stage:
                self.add_module(f"bn{stage}_0", nn.BatchNorm2d(width))
            if norm:
                self.add_module(f"bn{stage}_1", nn.BatchNorm2d(width))
            inputs = width
        self.linear1: nn.Linear = nn.Linear(inputs * (crop_px >> stages) ** 2, _HIDDEN)
        self.linear2: Float32Linear = Float32Linear(_HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, crop_px, crop_px]` in [0, 1] to float32 logits `[N, 1]`."""
        if x.shape[-2:] != (self.crop_px, self.crop_px):
            raise InputError(
                f"discriminator VGG: expected crops of {self.crop_px} x {self.crop_px} px, for which it was built, "
                f"got {x.shape[-2]} x {x.shape[-1]}; build it for that size."
            )
        for stage in range(self.stages):
            for layer in range(2):
                x = self.get_submodule(f"conv{stage}_{layer}")(x)
                if self.norm and (stage or layer):
                    x = self.get_submodule(f"bn{stage}_{layer}")(x)
                x = functional.leaky_relu(x, SLOPE, inplace=True)
        return self.linear2(functional.leaky_relu(self.linear1(torch.flatten(x, 1)), SLOPE))


def _count_stages(crop_px: int) -> int:
    """Return the number of halvings of a crop: as published, or down to a side of 3 to 5 px."""
    if crop_px in _PUBLISHED_STAGES:
        return _PUBLISHED_STAGES[crop_px]
    stages = 0
    while crop_px >> (stages + 1) >= _LAST_SIDE_PX:
        stages += 1
    return stages
