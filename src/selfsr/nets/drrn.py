"""DRRN (Tai et al., "Image Super-Resolution via Deep Recursive Residual Network", CVPR 2017)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import Float32Conv2d, from_studio_range, to_studio_range, upscale_bicubic

# The authors' depth, which tensors do not show.
_RECURSIONS = 25


class DrrnSpec(NetworkSpec):
    """DRRN, only for luma: one residual unit that is applied 25 times to the bicubically upscaled image."""

    title: ClassVar[str] = "DRRN"
    paper: ClassVar[str] = "Tai et al., CVPR 2017"
    convolutional: ClassVar[bool] = True
    multi_scale: ClassVar[bool] = True

    kind: Literal["drrn"] = "drrn"
    features: PositiveInt = Field(default=128, description="channels of the body (n_feats)")
    recursions: PositiveInt = Field(default=_RECURSIONS, description="number of recursions of the unit (U)")

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """Only gray, as published."""
        return (1,)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Drrn(scale, channels, features=self.features, recursions=self.recursions)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the four names of the self-paced paper's code; the depth is the authors'."""
        if set(tensors) != {f"{layer}.weight" for layer in ("head", "conv1", "conv2", "tail")}:
            return None
        features, channels = tensors["head.weight"].shape[:2]
        return Detected(cls(features=features), (), channels, dict(tensors))


class Drrn(SrNetwork):
    """DRRN as the self-paced paper's code computes it, on Y of 16 to 235.

    `g = relu(head(z))` with `z = relu(Y of bicubic(x))`; `u = g`, then `u <- conv2(relu(conv1(relu(u)))) + g` for
    each recursion; `Y of y = tail(relu(u)) + z`. In the paper, neither skip passes a ReLU. In that code, both do,
    because a ReLU works in place, and its weights were trained with it. There are no biases and no batch norm. The last
    layer starts at 0, so that training begins from bicubic upscaling.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 1.
        features: channels of the body.
        recursions: number of recursions of the shared unit.
    """

    def __init__(self, scale: int, channels: int = 1, *, features: int, recursions: int) -> None:
        super().__init__(scale, channels)
        self.recursions = recursions
        self.head: nn.Conv2d = conv(channels, features, bias=False)
        self.conv1: nn.Conv2d = conv(features, features, bias=False)
        self.conv2: nn.Conv2d = conv(features, features, bias=False)
        self.tail: Float32Conv2d = Float32Conv2d.like(conv(features, channels, bias=False))
        nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, 1, h, w]` in [0, 1] to float32 `[N, 1, scale * h, scale * w]`, not clamped."""
        enlarged = torch.relu(to_studio_range(upscale_bicubic(x, self.scale)))
        skip = features = torch.relu(self.head(enlarged.to(self.head.weight.dtype)))
        for _ in range(self.recursions):
            features = self.conv2(torch.relu(self.conv1(torch.relu(features)))) + skip
        return from_studio_range(self.tail(torch.relu(features)) + enlarged)
