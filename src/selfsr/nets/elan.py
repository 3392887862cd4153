"""ELAN (Zhang et al., "Efficient Long-Range Attention Network for Image Super-resolution", ECCV 2022)."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import DIV2K_GRAY, DIV2K_MEAN, VALUE_RANGE, Float32Conv2d, mirrored

# Channels are shifted by a pixel to each of four sides, and stay, in five groups of equal size.
_SHIFTS = ((1, 2), (1, 0), (2, 1), (0, 1), (1, 1))
_WindowPx = Annotated[int, Field(ge=2, le=64)]
# What the metadata of a weights file calls the windows, which no tensor shows; the name of the option, too.
_WINDOWS_SAID = "windows_px"


class ElanSpec(NetworkSpec):
    """ELAN with layer norm, as the self-similarity paper trains it; its authors have batch norm (`norm: batch`).

    Their light one is `features=60, blocks=24, shared=1, norm=batch`.
    """

    title: ClassVar[str] = "ELAN"
    paper: ClassVar[str] = "Zhang et al., ECCV 2022"
    convolutional: ClassVar[bool] = False
    parameters: ClassVar[int] = 8_312_448

    kind: Literal["elan"] = "elan"
    features: int = Field(default=180, ge=6, description="channels of the body, a multiple of 3 (c_elan)")
    blocks: PositiveInt = Field(default=36, description="attentions one after the other (m_elan)")
    windows_px: tuple[_WindowPx, _WindowPx, _WindowPx] = Field(
        default=(4, 8, 16), description="sides of the windows that a third of the channels each attends to, even"
    )
    shared: int = Field(default=0, ge=0, description="attentions that reuse the weights of the one before (n_share)")
    expansion: PositiveInt = Field(default=2, description="channels within a local layer per channel (r_expand)")
    norm: Literal["layer", "batch"] = Field(default="layer", description="of what is attended to")

    @property
    def minimum_px(self) -> int:
        """One window; less would be mostly mirror image."""
        return max(self.windows_px)

    @property
    def multiple_of_px(self) -> int:
        """What all windows divide."""
        return math.lcm(*self.windows_px)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.features % 3:
            raise ValueError(f"features must be a multiple of 3, a third for each window, got {self.features}")
        if any(side % 2 for side in self.windows_px):
            raise ValueError(f"windows_px must be even, because half a window is shifted, got {list(self.windows_px)}")
        if self.blocks % (1 + self.shared):
            raise ValueError(f"blocks must be a multiple of 1 + shared {1 + self.shared}, got {self.blocks}")
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Elan(scale, channels, self)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Detected | None:
        """Know the published names: of the self-similarity paper, and of the authors, with mean shifts of range 255."""
        local, attention = "body.0.modules_lfe.lfe_0.conv0.shift_conv.conv1x1", "body.0.modules_gmsa.gmsa_0"
        ends = {"head.0.weight", "tail.0.weight"}
        if not ends | {f"{local}.weight", f"{attention}.project_out.weight"} <= set(tensors):
            return None
        shift = tensors.get("sub_mean.bias")
        if shift is not None and not torch.allclose(-shift.float(), VALUE_RANGE * torch.tensor(DIV2K_MEAN), atol=0.1):
            return None
        features, channels = tensors["head.0.weight"].shape[:2]
        groups, layers = (key_names.count(tensors, rf"body\.{p}") for p in (r"(\d+)\.", r"0\.modules_lfe\.lfe_(\d+)\."))
        options = {
            "features": features,
            "blocks": groups * layers,
            "shared": layers - 1,
            "expansion": tensors[f"{local}.weight"].shape[0] // features,
            "norm": "layer" if f"{attention}.project_inp.1.norm.weight" in tensors else "batch",
        }
        windows = {_WINDOWS_SAID: said[_WINDOWS_SAID].split(",")} if _WINDOWS_SAID in said else {}
        spec = cls.model_validate({**options, **windows})
        scale = math.isqrt(tensors["tail.0.weight"].shape[0] // channels)
        return Detected(spec, (scale,), channels, {name: tensors[name] for name in key_names.without_shift(tensors)})


class Elan(SrNetwork):
    """The network of ELAN: `y = unshift(shuffle(tail(h + body(h))))`, `h = head(shift(x))`, range 255 inside.

    The image is mirrored at the right and below up to a multiple of all windows. Names are the authors'; the mean of
    DIV2K is a constant. Every second group of the body looks at windows that are shifted by half of one, around the
    border of the image to the other side. Weights start as PyTorch's own, as the authors'.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        spec: the other options.
    """

    mean: Tensor

    def __init__(self, scale: int, channels: int, spec: ElanSpec) -> None:
        super().__init__(scale, channels)
        self.windows_px, self.cell_px = spec.windows_px, spec.multiple_of_px
        mean = torch.tensor(DIV2K_MEAN if channels == 3 else (DIV2K_GRAY,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.head = nn.Sequential(conv(channels, spec.features))
        groups = spec.blocks // (1 + spec.shared)
        self.body = nn.Sequential(*(_Group(spec, shifted=n % 2 == 1) for n in range(groups)))
        last = Float32Conv2d.like(conv(spec.features, channels * scale**2))
        self.tail = nn.Sequential(last, nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] of any size to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        height, width = x.shape[-2:]
        cell = self.cell_px
        whole = mirrored(x, -(-height // cell) * cell, -(-width // cell) * cell)
        mean = self.mean.to(torch.promote_types(x.dtype, torch.float32))
        head = self.head(((whole - mean) * VALUE_RANGE).to(next(self.parameters()).dtype))
        image = self.tail(head + self.body(head)) / VALUE_RANGE + mean
        return image[..., : height * self.scale, : width * self.scale]

    def file_metadata(self) -> dict[str, str]:
        """Return the windows, which no tensor shows."""
        return {_WINDOWS_SAID: ",".join(map(str, self.windows_px))}


class _Group(nn.Module):
    """`x + local(x)` and `x + attention(x)` in turn; all attentions use the weights that the first computes."""

    def __init__(self, spec: ElanSpec, *, shifted: bool) -> None:
        super().__init__()
        self.modules_lfe = nn.ModuleDict({f"lfe_{n}": _Local(spec) for n in range(1 + spec.shared)})
        self.modules_gmsa = nn.ModuleDict(
            {f"gmsa_{n}": _Attention(spec, shifted=shifted, first=n == 0) for n in range(1 + spec.shared)}
        )

    def forward(self, x: Tensor) -> Tensor:
        weights: list[Tensor] = []
        for local, attention in zip(self.modules_lfe.values(), self.modules_gmsa.values(), strict=True):
            x = x + local(x)
            attended, weights = attention(x, weights)
            x = x + attended
        return x


class _Local(nn.Module):
    """`conv(relu(conv(x)))` of shifted 1x1 convolutions."""

    def __init__(self, spec: ElanSpec) -> None:
        super().__init__()
        width = spec.features * spec.expansion
        self.conv0, self.conv1 = _ShiftConv(spec.features, width), _ShiftConv(width, spec.features)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(torch.relu(self.conv0(x)))


class _ShiftConv(nn.Module):
    """Holds one convolution under the name that it has in the published files."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shift_conv = _Shift(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.shift_conv(x)


class _Shift(nn.Module):
    """A 1x1 convolution of channels that are shifted by a pixel, a fifth of them to each side; 0 comes in."""

    weight: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        shifts = torch.zeros(inputs, 1, 3, 3)
        fifth = inputs // len(_SHIFTS)
        for n, (row, column) in enumerate(_SHIFTS):
            end = (n + 1) * fifth if n + 1 < len(_SHIFTS) else inputs
            shifts[n * fifth : end, 0, row, column] = 1
        self.register_buffer("weight", shifts)  # among the tensors because the published files hold it
        self.conv1x1 = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(functional.conv2d(x, self.weight.to(x.dtype), padding=1, groups=x.shape[1]))


class _Attention(nn.Module):
    """Self-attention in windows of three sizes, each over a third of the channels, with queries for keys.

    `softmax(q q') v` in each window, without a scale; with weights given, these in place of the softmax.
    """

    def __init__(self, spec: ElanSpec, *, shifted: bool, first: bool) -> None:
        super().__init__()
        self.windows_px, self.shifted = spec.windows_px, shifted
        width = spec.features * (2 if first else 1)
        norm = _LayerNorm(width) if spec.norm == "layer" else nn.BatchNorm2d(width)
        self.project_inp = nn.Sequential(conv(spec.features, width, 1), norm)
        self.project_out = conv(spec.features, spec.features, 1)

    def forward(self, x: Tensor, given: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        size, outputs, weights = x.shape[-2:], [], []
        for n, (side, part) in enumerate(zip(self.windows_px, self.project_inp(x).chunk(3, 1), strict=True)):
            back = side // 2 if self.shifted else 0
            inside = _cut(part.roll((-back, -back), (2, 3)), side)
            if given:
                weight, values = given[n], inside
            else:
                queries, values = inside.chunk(2, 2)
                weight = (queries @ queries.transpose(1, 2)).softmax(2)
            outputs.append(_joined((weight.to(values.dtype) @ values), side, size).roll((back, back), (2, 3)))
            weights.append(weight)
        return self.project_out(torch.cat(outputs, 1)), weights


class _LayerNorm(nn.Module):
    """Layer norm over the channels of `[N, C, H, W]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _cut(x: Tensor, side: int) -> Tensor:
    """Cut `[N, C, H, W]` into windows `[N * H/side * W/side, side * side, C]`."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // side, side, w // side, side).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, side * side, c)


def _joined(windows: Tensor, side: int, size: torch.Size) -> Tensor:
    """Join what `_cut` has cut to `[N, C, H, W]`."""
    (h, w), c = size, windows.shape[2]
    x = windows.reshape(-1, h // side, w // side, side, side, c).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(-1, c, h, w)
