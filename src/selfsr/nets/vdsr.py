"""VDSR (Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, MeanShift, studio_mean_shifts, upscale_bicubic


class VdsrSpec(NetworkSpec):
    """VDSR: twenty convolutions that correct the bicubically upscaled image."""

    title: ClassVar[str] = "VDSR"
    paper: ClassVar[str] = "Kim et al., CVPR 2016"
    convolutional: ClassVar[bool] = True
    multi_scale: ClassVar[bool] = True

    kind: Literal["vdsr"] = "vdsr"
    features: PositiveInt = Field(default=64, description="channels of the body (n_feats)")
    convs: int = Field(default=20, ge=2, description="convolutions, including the first and the last (n_resblocks)")

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Vdsr(scale, channels, features=self.features, convs=self.convs)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the names of the self-paced paper's code, `body.0.0` to `body.19.0`, and of `residual_layer`."""
        if {"input.weight", "output.weight"} <= set(tensors) and "residual_layer.0.conv.weight" in tensors:
            return cls._detect_other_names(tensors)
        if "body.0.0.weight" not in tensors:
            return None
        convs = key_names.count_layers(tensors, r"body\.(\d+)\.")
        if convs < 2 or key_names.drop_mean_shift(tensors) != key_names.layer_keys(
            *(f"body.{n}.0" for n in range(convs))
        ):
            return None
        features, channels = tensors["body.0.0.weight"].shape[:2]
        return Detected(cls(features=features, convs=convs), (), channels, key_names.to_range_255(tensors))

    @classmethod
    def _detect_other_names(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect another common PyTorch implementation: no biases, and Y of 16 to 235 without a mean shift."""
        convs = key_names.count_layers(tensors, r"residual_layer\.(\d+)\.") + 2
        layers = ["input", *(f"residual_layer.{n}.conv" for n in range(convs - 2)), "output"]
        if set(tensors) != {f"{layer}.weight" for layer in layers}:
            return None
        features, channels = tensors["input.weight"].shape[:2]
        renamed = {f"body.{n}.0.weight": tensors[f"{layer}.weight"] for n, layer in enumerate(layers)}
        biases = {f"body.{n}.0.bias": torch.zeros(channels if n == convs - 1 else features) for n in range(convs)}
        # Without biases the network is as good for 0 to 255 as for 0 to 1.
        return Detected(
            cls(features=features, convs=convs), (), channels, {**renamed, **biases, **studio_mean_shifts(channels)}
        )


class Vdsr(SrNetwork):
    """VDSR: `y = add_mean(z + body(z))` with `z = sub_mean(bicubic(x))`.

    Key names, mean shift and the internal range of 0 to 255 are those of the self-paced paper's code. Weights start as
    He normal and biases at 0, as in the paper. Only the last layer starts at 0, so that training begins from bicubic
    upscaling.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels of the body.
        convs: convolutions of the body.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, convs: int) -> None:
        super().__init__(scale, channels)
        self.sub_mean: MeanShift = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean: MeanShift = MeanShift(channels, 1, VALUE_RANGE)
        inputs = [channels] + [features] * (convs - 1)
        stages = [nn.Sequential(conv(width, features), nn.ReLU(inplace=True)) for width in inputs[:-1]]
        last = Float32Conv2d.like(conv(inputs[-1], channels))
        self.body: nn.Sequential = nn.Sequential(*stages, nn.Sequential(last))
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.zeros_(last.weight)  # with He noise here, training needs thousands of steps to reach bicubic

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shifted = self.sub_mean(upscale_bicubic(x, self.scale) * VALUE_RANGE)
        residual = self.body(shifted.to(next(self.body.parameters()).dtype))
        return self.add_mean(shifted + residual) / VALUE_RANGE
