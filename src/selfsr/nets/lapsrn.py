"""LapSRN (Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution", CVPR 2017)."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import Float32Conv2d, Float32ConvTranspose2d, from_studio_range, to_studio_range

_SLOPE = 0.2
# Names in another common PyTorch implementation, which counts its levels from 1, and ours.
_OTHER_NAMES = (
    (r"conv_input\.", "head.0."),
    (r"convt_I(\d+)\.", r"img_branch_\1."),
    (r"convt_R(\d+)\.", r"residual_branch_\1."),
    (r"convt_F(\d+)\.0\.cov_block\.20\.", r"feat_branch_\1.tail.0."),
    (r"convt_F(\d+)\.0\.cov_block\.", r"feat_branch_\1.body."),
)


class LapSrnSpec(NetworkSpec):
    """LapSRN, only for luma: a pyramid in which each level doubles the image and adds a residual."""

    title: ClassVar[str] = "LapSRN"
    paper: ClassVar[str] = "Lai et al., CVPR 2017"
    convolutional: ClassVar[bool] = True
    scales_reason: ClassVar[str] = "each level doubles the image"

    kind: Literal["lapsrn"] = "lapsrn"
    features: PositiveInt = Field(default=64, description="channels of the body (n_feats)")
    convs: PositiveInt = Field(default=10, description="convolutions of each level before it doubles (depth)")
    bilinear_start: bool = Field(
        default=True,
        description="start the image branch as bilinear upscaling, as the authors do; false starts it at random, as "
        "the self-paced paper's code does",
    )

    @property
    def scales(self) -> tuple[int, ...]:
        """Powers of two."""
        return (2, 4, 8)

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """Only gray, as published."""
        return (1,)

    def _make(self, scale: int, channels: int) -> nn.Module:
        net = LapSrn(scale, channels, features=self.features, convs=self.convs)
        net.init_weights(bilinear=self.bilinear_start)
        return net

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect our names, with levels from 0 or from 1, and those of the implementation with `convt_I1`."""
        if {"conv_input.weight", "convt_I1.weight", "convt_R1.weight"} <= set(tensors):
            tensors = key_names.rename_keys(tensors, _OTHER_NAMES)
        if not any(name.startswith("img_branch_") for name in tensors) or "head.0.weight" not in tensors:
            return None
        if not any(name.startswith("img_branch_0.") for name in tensors):
            levels = key_names.count_layers(tensors, r"img_branch_(\d+)\.")
            rules = [(rf"(\w+_branch_){level}\.", rf"\g<1>{level - 1}.") for level in range(1, levels)]
            tensors = key_names.rename_keys(tensors, rules)
        features, channels = tensors["head.0.weight"].shape[:2]
        convs = key_names.count_layers(tensors, r"feat_branch_0\.body\.(\d+)\.") // 2 + 1
        scale = 2 ** key_names.count_layers(tensors, r"img_branch_(\d+)\.")
        return Detected(cls(features=features, convs=convs), (scale,), channels, dict(tensors))


class LapSrn(SrNetwork):
    """LapSRN as in the self-paced paper's code, on Y of 16 to 235, without biases.

    `f = lrelu(head(Y))`; at each level `f <- lrelu(up(ten times lrelu(conv(f))))` and `Y <- image(Y) + residual(f)`,
    where `up` and `image` are transposed convolutions. Levels share no weights. Only the last level is the output. The
    residual branches start at 0, so that training begins from the image branch. The other convolutions start as He
    normal.

    Args:
        scale: 2, 4 or 8.
        channels: 1.
        features: channels of the body.
        convs: convolutions of each level.
    """

    def __init__(self, scale: int, channels: int = 1, *, features: int, convs: int) -> None:
        super().__init__(scale, channels)
        self.levels: int = round(math.log2(scale))
        self.head: nn.Sequential = nn.Sequential(conv(channels, features, bias=False), _build_activation())
        for level in range(self.levels):
            image = Float32ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
            self.add_module(f"img_branch_{level}", image)
            self.add_module(f"residual_branch_{level}", Float32Conv2d.like(conv(features, channels, bias=False)))
            self.add_module(f"feat_branch_{level}", _LapSrnLevel(features, convs))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, 1, h, w]` in [0, 1] to float32 `[N, 1, scale * h, scale * w]`, not clamped."""
        image = to_studio_range(x)
        features = self.head(image.to(next(self.head.parameters()).dtype))
        for level in range(self.levels):
            features = self.get_submodule(f"feat_branch_{level}")(features)
            residual = self.get_submodule(f"residual_branch_{level}")(features)
            image = self.get_submodule(f"img_branch_{level}")(image) + residual
        return from_studio_range(image)

    @torch.no_grad()
    def init_weights(self, *, bilinear: bool) -> None:
        """Initialize the weights; the image branch as bilinear upscaling, or as PyTorch's default."""
        gain = nn.init.calculate_gain("leaky_relu", _SLOPE)
        for module in self.modules():
            if isinstance(module, Float32ConvTranspose2d):
                if bilinear:
                    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
                    module.weight.copy_(taps[:, None] * taps)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # Only 2 x 2 of the 4 x 4 taps of a transposed convolution reach one pixel.
                taps_in = module.in_channels * (4 if isinstance(module, nn.ConvTranspose2d) else 9)
                module.weight.normal_(std=gain / math.sqrt(taps_in))
        for level in range(self.levels):
            nn.init.zeros_(self.get_submodule(f"residual_branch_{level}").weight)  # pyright: ignore[reportArgumentType]


class _LapSrnLevel(nn.Module):
    """The feature branch of one level."""

    def __init__(self, features: int, convs: int) -> None:
        super().__init__()
        layers = []
        for _ in range(convs):
            layers += [conv(features, features, bias=False), _build_activation()]
        self.body = nn.Sequential(*layers)
        up = nn.ConvTranspose2d(features, features, 4, stride=2, padding=1, bias=False)
        self.tail = nn.Sequential(up, _build_activation())

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(x))


def _build_activation() -> nn.Module:
    return nn.LeakyReLU(_SLOPE, inplace=True)
