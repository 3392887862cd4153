"""DRRN (Tai et al., "Image Super-Resolution via Deep Recursive Residual Network", CVPR 2017)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import Float32Conv2d, bicubic, full_range, studio_range

# The authors' depth, which a file of tensors alone does not show.
_RECURSIONS = 25


class DrrnSpec(NetworkSpec):
    """DRRN, for luma alone: one residual unit that is passed 25 times, over the bicubically upscaled image."""

    title: ClassVar[str] = "DRRN"
    paper: ClassVar[str] = "Tai et al., CVPR 2017"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 297_216
    serves_several: ClassVar[bool] = True

    kind: Literal["drrn"] = "drrn"
    features: PositiveInt = Field(default=128, description="channels of the body (n_feats)")
    recursions: PositiveInt = Field(default=_RECURSIONS, description="times that the unit is passed (U)")

    @property
    def colors(self) -> tuple[int, ...]:
        """Gray alone, as published."""
        return (1,)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Drrn(scale, channels, features=self.features, recursions=self.recursions)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Detected | None:
        """Know the four names of the self-paced paper's code."""
        if set(tensors) != {f"{layer}.weight" for layer in ("head", "conv1", "conv2", "tail")}:
            return None
        features, channels = tensors["head.weight"].shape[:2]
        spec = cls(features=features, recursions=int(said.get("recursions", _RECURSIONS)))
        return Detected(spec, (), channels, dict(tensors))


class Drrn(SrNetwork):
    """The network of DRRN as the self-paced paper's code computes it, on Y of 16 to 235.

    `g = relu(head(z))` with `z = relu(Y of bicubic(x))`; `u = g`, then `u <- conv2(relu(conv1(relu(u)))) + g` for
    each recursion; `Y of y = tail(relu(u)) + z`. The paper rectifies neither skip; in that code a ReLU that works
    in place does, and its weights were trained with it. No biases, no batch normalization. The last layer starts at 0,
    so that training begins from bicubic.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 1.
        features: channels of the body.
        recursions: passes of the shared unit.
    """

    def __init__(self, scale: int, channels: int = 1, *, features: int, recursions: int) -> None:
        super().__init__(scale, channels)
        self.recursions = recursions
        self.head = conv(channels, features, bias=False)
        self.conv1 = conv(features, features, bias=False)
        self.conv2 = conv(features, features, bias=False)
        self.tail = Float32Conv2d.like(conv(features, channels, bias=False))
        nn.init.zeros_(self.tail.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, 1, h, w]` in [0, 1] to float32 `[N, 1, scale * h, scale * w]`, not clamped."""
        enlarged = torch.relu(studio_range(bicubic(x, self.scale)))
        skip = features = torch.relu(self.head(enlarged.to(self.head.weight.dtype)))
        for _ in range(self.recursions):
            features = self.conv2(torch.relu(self.conv1(torch.relu(features)))) + skip
        return full_range(self.tail(torch.relu(features)) + enlarged)

    def file_metadata(self) -> dict[str, str]:
        """Return the scale and the depth, which no tensor shows."""
        return {"scale": str(self.scale), "recursions": str(self.recursions)}
