"""SRCNN (Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016, the 9-5-5 network)."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, MeanShift, studio_mean_shifts, upscale_bicubic


class SrcnnSpec(NetworkSpec):
    """SRCNN: three convolutions on the bicubically upscaled image."""

    title: ClassVar[str] = "SRCNN"
    paper: ClassVar[str] = "Dong et al., TPAMI 2016"
    convolutional: ClassVar[bool] = True
    multi_scale: ClassVar[bool] = True

    kind: Literal["srcnn"] = "srcnn"
    features: tuple[PositiveInt, PositiveInt] = Field(
        default=(64, 32), description="channels after the first and the second convolution (n1, n2)"
    )
    kernels_px: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        default=(9, 5, 5), description="sides of the three kernels, odd (f1, f2, f3)"
    )

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if any(side % 2 == 0 for side in self.kernels_px):
            raise ValueError(f"kernels_px must be odd, got {list(self.kernels_px)}")
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Srcnn(scale, channels, features=self.features, kernels_px=self.kernels_px)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect our names, and `conv1` to `conv3` of the luma files that are common in PyTorch."""
        if set(tensors) == key_names.layer_keys("conv1", "conv2", "conv3"):
            renamed = key_names.rename_keys(tensors, [(rf"conv{n}\.", f"body.{2 * n - 2}.") for n in (1, 2, 3)])
            channels = tensors["conv1.weight"].shape[1]
            # Those files were trained on Y of 16/255 to 235/255, without a mean shift.
            tensors = {**key_names.scale_biases(renamed, VALUE_RANGE), **studio_mean_shifts(channels)}
        elif key_names.drop_mean_shift(tensors) != key_names.layer_keys("body.0", "body.2", "body.4"):
            return None
        weights = [tensors[f"body.{n}.weight"] for n in (0, 2, 4)]
        spec = cls(
            features=(weights[0].shape[0], weights[1].shape[0]),
            kernels_px=(weights[0].shape[2], weights[1].shape[2], weights[2].shape[2]),
        )
        return Detected(spec, (), weights[0].shape[1], key_names.to_range_255(tensors))


class Srcnn(SrNetwork):
    """SRCNN: `y = add_mean(body(sub_mean(bicubic(x))))`, `body` three convolutions with ReLU between them.

    Structure, key names, mean shift and the internal range of 0 to 255 are those of the self-paced paper's code.
    Weights have PyTorch's default initialization.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels after the first two convolutions.
        kernels_px: sides of the kernels.
    """

    def __init__(
        self, scale: int, channels: int = 3, *, features: tuple[int, int], kernels_px: tuple[int, int, int]
    ) -> None:
        super().__init__(scale, channels)
        self.sub_mean: MeanShift = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean: MeanShift = MeanShift(channels, 1, VALUE_RANGE)
        self.body: nn.Sequential = nn.Sequential(
            conv(channels, features[0], kernels_px[0]),
            nn.ReLU(inplace=True),
            conv(features[0], features[1], kernels_px[1]),
            nn.ReLU(inplace=True),
            Float32Conv2d.like(conv(features[1], channels, kernels_px[2])),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shifted = self.sub_mean(upscale_bicubic(x, self.scale) * VALUE_RANGE)
        return self.add_mean(self.body(shifted.to(self.body[0].weight.dtype))) / VALUE_RANGE
