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
from selfsr.nets.layers import DIV2K_GRAY, DIV2K_MEAN, VALUE_RANGE, Float32Conv2d, pad_reflect

# Five groups of channels of equal size: four are shifted by one pixel, each to another side; the fifth stays.
_SHIFTS = ((1, 2), (1, 0), (2, 1), (0, 1), (1, 1))
_WindowPx = Annotated[int, Field(ge=2, le=64)]


class ElanSpec(NetworkSpec):
    """ELAN with layer norm, as the self-similarity paper trains it; ELAN's authors use batch norm (`norm: batch`).

    Their light network is `features=60, blocks=24, shared=1, norm=batch`.
    """

    title: ClassVar[str] = "ELAN"
    paper: ClassVar[str] = "Zhang et al., ECCV 2022"
    convolutional: ClassVar[bool] = False

    kind: Literal["elan"] = "elan"
    features: int = Field(default=180, ge=6, description="channels of the body, a multiple of 3 (c_elan)")
    blocks: PositiveInt = Field(default=36, description="number of attention layers (m_elan)")
    windows_px: tuple[_WindowPx, _WindowPx, _WindowPx] = Field(
        default=(4, 8, 16), description="sides of the attention windows, even; each is used for a third of the channels"
    )
    shared: int = Field(
        default=0, ge=0, description="attention layers that reuse the attention of the one before (n_share)"
    )
    expansion: PositiveInt = Field(
        default=2, description="hidden channels of each local layer, as a multiple of its input channels (r_expand)"
    )
    norm: Literal["layer", "batch"] = Field(
        default="layer", description="norm of the attention's input: layer norm or batch norm"
    )

    @property
    def minimum_px(self) -> int:
        """One window, the largest; less would be mostly padding."""
        return max(self.windows_px)

    @property
    def multiple_of_px(self) -> int:
        """The least common multiple of the windows."""
        return math.lcm(*self.windows_px)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
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
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the published names: the self-similarity paper's, and the authors' with mean shifts of range 255.

        The windows are the published ones, which tensors do not show.
        """
        local, attention = "body.0.modules_lfe.lfe_0.conv0.shift_conv.conv1x1", "body.0.modules_gmsa.gmsa_0"
        ends = {"head.0.weight", "tail.0.weight"}
        if not ends | {f"{local}.weight", f"{attention}.project_out.weight"} <= set(tensors):
            return None
        shift = tensors.get("sub_mean.bias")
        if shift is not None and not torch.allclose(-shift.float(), VALUE_RANGE * torch.tensor(DIV2K_MEAN), atol=0.1):
            return None
        features, channels = tensors["head.0.weight"].shape[:2]
        groups, layers = (
            key_names.count_layers(tensors, rf"body\.{p}") for p in (r"(\d+)\.", r"0\.modules_lfe\.lfe_(\d+)\.")
        )
        options = {
            "features": features,
            "blocks": groups * layers,
            "shared": layers - 1,
            "expansion": tensors[f"{local}.weight"].shape[0] // features,
            "norm": "layer" if f"{attention}.project_inp.1.norm.weight" in tensors else "batch",
        }
        spec = cls.model_validate(options)
        scale = math.isqrt(tensors["tail.0.weight"].shape[0] // channels)
        return Detected(spec, (scale,), channels, {name: tensors[name] for name in key_names.drop_mean_shift(tensors)})


class Elan(SrNetwork):
    """ELAN: `y = shuffle(tail(h + body(h))) + mean`, `h = head(x - mean)`, with an internal range of 0 to 255.

    The image is padded by reflection at the right and the bottom to a multiple of all windows. Names are the authors';
    the mean is DIV2K's. In every second group of the body, windows are shifted by half a window, cyclically. Weights
    have PyTorch's default initialization, as the authors' have.

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
        self.head: nn.Sequential = nn.Sequential(conv(channels, spec.features))
        groups = spec.blocks // (1 + spec.shared)
        self.body: nn.Sequential = nn.Sequential(*(_ElanGroup(spec, shifted=n % 2 == 1) for n in range(groups)))
        last = Float32Conv2d.like(conv(spec.features, channels * scale**2))
        self.tail: nn.Sequential = nn.Sequential(last, nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] of any size to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        height, width = x.shape[-2:]
        cell = self.cell_px
        padded = pad_reflect(x, -(-height // cell) * cell, -(-width // cell) * cell)
        mean = self.mean.to(torch.promote_types(x.dtype, torch.float32))
        head = self.head(((padded - mean) * VALUE_RANGE).to(next(self.parameters()).dtype))
        image = self.tail(head + self.body(head)) / VALUE_RANGE + mean
        return image[..., : height * self.scale, : width * self.scale]


class _ElanGroup(nn.Module):
    """Compute `x + local(x)` and `x + attention(x)` in turn, with the attention weights of the first."""

    def __init__(self, spec: ElanSpec, *, shifted: bool) -> None:
        super().__init__()
        self.modules_lfe = nn.ModuleDict({f"lfe_{n}": _ElanLocal(spec) for n in range(1 + spec.shared)})
        self.modules_gmsa = nn.ModuleDict(
            {f"gmsa_{n}": _ElanAttention(spec, shifted=shifted, first=n == 0) for n in range(1 + spec.shared)}
        )

    def forward(self, x: Tensor) -> Tensor:
        weights: list[Tensor] = []
        for local, attention in zip(self.modules_lfe.values(), self.modules_gmsa.values(), strict=True):
            x = x + local(x)
            attended, weights = attention(x, weights)
            x = x + attended
        return x


class _ElanLocal(nn.Module):
    """Compute `conv(relu(conv(x)))` with shifted 1x1 convolutions."""

    def __init__(self, spec: ElanSpec) -> None:
        super().__init__()
        width = spec.features * spec.expansion
        self.conv0, self.conv1 = _ElanShiftConv(spec.features, width), _ElanShiftConv(width, spec.features)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(torch.relu(self.conv0(x)))


class _ElanShiftConv(nn.Module):
    """A wrapper that gives one convolution its name in the published files."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shift_conv = _ElanShift(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.shift_conv(x)


class _ElanShift(nn.Module):
    """Shift four fifths of the channels by one pixel, a fifth to each side with zero padding, then convolve 1x1."""

    weight: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        shifts = torch.zeros(inputs, 1, 3, 3)
        fifth = inputs // len(_SHIFTS)
        for n, (row, column) in enumerate(_SHIFTS):
            end = (n + 1) * fifth if n + 1 < len(_SHIFTS) else inputs
            shifts[n * fifth : end, 0, row, column] = 1
        self.register_buffer("weight", shifts)  # a buffer, because the published files contain it
        self.conv1x1 = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(functional.conv2d(x, self.weight.to(x.dtype), padding=1, groups=x.shape[1]))


class _ElanAttention(nn.Module):
    """Compute self-attention in windows of three sizes, each for a third of the channels, with the queries as keys.

    In each window, `softmax(q q') v`, without a scaling factor; or `shared v` with attention weights of another layer.
    """

    def __init__(self, spec: ElanSpec, *, shifted: bool, first: bool) -> None:
        super().__init__()
        self.windows_px, self.shifted = spec.windows_px, shifted
        width = spec.features * (2 if first else 1)
        norm = _ChannelLayerNorm(width) if spec.norm == "layer" else nn.BatchNorm2d(width)
        self.project_inp = nn.Sequential(conv(spec.features, width, 1), norm)
        self.project_out = conv(spec.features, spec.features, 1)

    def forward(self, x: Tensor, shared: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        size, outputs, weights = x.shape[-2:], [], []
        for n, (side, third) in enumerate(zip(self.windows_px, self.project_inp(x).chunk(3, 1), strict=True)):
            offset = side // 2 if self.shifted else 0
            windows = _split_windows(third.roll((-offset, -offset), (2, 3)), side)
            if shared:
                weight, values = shared[n], windows
            else:
                queries, values = windows.chunk(2, 2)
                weight = (queries @ queries.transpose(1, 2)).softmax(2)
            image = _join_windows(weight.to(values.dtype) @ values, side, size)
            outputs.append(image.roll((offset, offset), (2, 3)))
            weights.append(weight)
        return self.project_out(torch.cat(outputs, 1)), weights


class _ChannelLayerNorm(nn.Module):
    """Normalize `[N, C, H, W]` over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _split_windows(x: Tensor, side: int) -> Tensor:
    """Split `[N, C, H, W]` into windows `[N * H/side * W/side, side * side, C]`."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // side, side, w // side, side).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, side * side, c)


def _join_windows(windows: Tensor, side: int, size: torch.Size) -> Tensor:
    """Join the windows of `_split_windows` to `[N, C, H, W]`."""
    (h, w), c = size, windows.shape[2]
    x = windows.reshape(-1, h // side, w // side, side, side, c).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(-1, c, h, w)
