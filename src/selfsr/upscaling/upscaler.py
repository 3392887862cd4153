"""Run a model on pictures: any size, depth and colors, in the memory there is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr.console import print_line
from selfsr.errors import InputError
from selfsr.images.files import Picture, from_tensor
from selfsr.images.large import new_array
from selfsr.machine.device import why_not_bfloat16
from selfsr.machine.memory import is_out_of_memory, release
from selfsr.nets.weights.load import Model
from selfsr.upscaling.tile_size import LEAST_TILE_PX, largest_tile_px, smaller_tile_px
from selfsr.upscaling.tiling import OVERLAP_PX, self_ensemble, tiled, upscale_blocks

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Tile = int | Literal["auto", "off"]
OnTile = Callable[[int, int], None]
T = TypeVar("T")

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Up to this side a picture is upscaled whole, without measuring first what it takes.
_SMALL_PX = 128


def _say(sentence: str) -> None:
    print_line(sentence)


class Upscaler:
    """A model made ready for a device; calls upscale tensors, `picture` upscales pictures.

    Not for use by several threads at once. The model's network is moved to the device.

    Args:
        model: what to run.
        device: where.
        precision: of the network; "auto" takes float16 or bfloat16 where the device computes it natively, the model
            supports it and the result is still fine enough for 8 bit, and float32 for pictures of 16 bit.
        tile: the largest tile in input pixels; "auto" measures what fits into free memory, "off" uses none.
        overlap_px: what neighboring tiles share, half a tile at most (see `tiling`); 64 px if not given.
        ensemble: average over the eight flips and rotations of each tile (EDSR, section 3.4): slower by eight.
        notify: called with a sentence when tiles or the precision are changed on the way.

    Raises:
        InputError: the precision is not to be had here, or tile and overlap do not go together.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: torch.device,
        precision: Precision = "auto",
        tile: Tile = "auto",
        overlap_px: int | None = None,
        ensemble: bool = False,
        notify: Callable[[str], None] = _say,
    ) -> None:
        least_px = max(LEAST_TILE_PX, model.multiple_of_px)
        if isinstance(tile, int) and tile < least_px:
            raise InputError(f"upscale: the tile must be auto, off or at least {least_px} px, got {tile}.")
        if overlap_px is not None and (overlap_px < 0 or (isinstance(tile, int) and overlap_px > tile // 2)):
            raise InputError(
                f"upscale: the overlap must be from 0 to half of the tile, got {overlap_px} px with tile {tile}."
            )
        self.model = model
        self.device = device
        self.overlap_px = OVERLAP_PX if overlap_px is None else overlap_px
        self._tile = tile
        # The largest tile that is known to fit; None is not known yet.
        self._tile_px = tile // model.multiple_of_px * model.multiple_of_px if isinstance(tile, int) else None
        self._notify = notify
        self._running = _Running(model.net.to(device).eval())
        self._whole = replace(model, net=self._running).upscale
        self._upscale = self_ensemble(self._in_range) if ensemble else self._in_range
        self._asked = precision
        self._half = self._choose_half(precision)

    @property
    def precision(self) -> str:
        """The precision that pictures of 8 bit are upscaled in."""
        return str(self._half or torch.float32).removeprefix("torch.")

    def __call__(self, lr: Tensor) -> Tensor:
        """Upscale float `[N, C, h, w]` in [0, 1], C 1 or 3, to float32 `[N, C, s h, s w]`."""
        self._running.dtype = self._half or torch.float32

        def attempt(tile_px: int) -> Tensor:
            return tiled(
                self._upscale,
                lr.to(self.device),
                scale=self.model.scale,
                tile_px=tile_px,
                overlap_px=min(self.overlap_px, tile_px // 2),
                multiple_px=self.model.multiple_of_px,
            )

        with torch.inference_mode():
            return self._fitting(attempt, max(lr.shape[-2:]))

    def picture(self, picture: Picture, *, scratch: Path, on_tile: OnTile | None = None) -> Picture:
        """Upscale a picture; gray stays gray, 16 bit stays 16 bit, alpha and ICC profile are kept.

        Alpha goes through the model, too, and is kept within what its neighborhood has, so that opaque stays
        opaque. The colors under fully transparent pixels, which are often black, are replaced by those nearby
        first, so that they do not bleed into what can be seen.

        Args:
            picture: of any size; only tiles of it are ever held as floats.
            scratch: folder where an output too large for memory is kept meanwhile.
            on_tile: called with the number of finished tiles and of all.

        Raises:
            InputError: not even the smallest tile fits into memory, or the model gives NaN.
            OSError: no room in `scratch`.
        """
        fine = self._asked == "auto" and picture.bits == 16
        self._running.dtype = torch.float32 if self._half is None or fine else self._half
        scale, peak, dtype = self.model.scale, 2**picture.bits - 1, picture.pixels.dtype
        alpha = picture.alpha if picture.alpha is not None and int(picture.alpha.min()) < peak else None
        size = (picture.height * scale, picture.width * scale)
        out_pixels = new_array((*size, picture.channels), dtype, scratch)
        out_alpha = None
        if picture.alpha is not None:
            out_alpha = new_array(size, dtype, scratch)
            out_alpha[:] = peak

        def read(rows: slice, columns: slice) -> Tensor:
            return _channels_first(picture.pixels, alpha, rows, columns).to(self.device) / peak

        def write(rows: slice, columns: slice, block: Tensor) -> None:
            levels = from_tensor(block[0], picture.bits)
            out_pixels[rows, columns] = levels[..., : picture.channels]
            if out_alpha is not None and alpha is not None:
                out_alpha[rows, columns] = levels[..., picture.channels]

        def attempt(tile_px: int) -> None:
            upscale_blocks(
                self._upscale if alpha is None else self._with_alpha,
                read,
                write,
                height=picture.height,
                width=picture.width,
                scale=scale,
                tile_px=tile_px,
                overlap_px=min(self.overlap_px, tile_px // 2),
                multiple_px=self.model.multiple_of_px,
                on_tile=on_tile,
            )

        with torch.inference_mode():
            self._fitting(attempt, max(picture.height, picture.width))
        return Picture(out_pixels, out_alpha, picture.icc)

    def _in_range(self, lr: Tensor) -> Tensor:
        """Upscale a tile; where a half precision leaves its range, here and from now on in float32."""
        try:
            return self._whole(lr)
        except FloatingPointError as error:
            if self._half is None or self._running.dtype == torch.float32:
                raise InputError(
                    f"upscale: the output of {self.model.architecture} has NaN or infinite values; "
                    "the model or its weights are broken."
                ) from error
        self._notify(f"{self.model.architecture} leaves the range of {self.precision}; going on in float32.")
        self._half, self._running.dtype = None, torch.float32
        return self._in_range(lr)

    def _with_alpha(self, lr: Tensor) -> Tensor:
        """Upscale `[1, C + 1, h, w]`, the last channel being alpha."""
        colors, alpha = lr[:, :-1], lr[:, -1:]
        sr = self._upscale(filled(colors, alpha > 0))
        low, high = -functional.max_pool2d(-alpha, 3, 1, 1), functional.max_pool2d(alpha, 3, 1, 1)
        if bool((low == high).all()):
            return torch.cat([sr, functional.interpolate(alpha, scale_factor=self.model.scale)], 1)
        low, high = (functional.interpolate(x, scale_factor=self.model.scale) for x in (low, high))
        return torch.cat([sr, self._upscale(alpha).clamp(low, high)], 1)

    def _fitting(self, attempt: Callable[[int], T], longest_px: int) -> T:
        """Return `attempt(tile_px)`, made anew with smaller tiles as often as memory runs out."""
        while True:
            tile_px = self._tile_for(longest_px)
            try:
                return attempt(tile_px)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            # Not inside `except`: the error holds on to the tensors of the failed attempt.
            release()
            if self._tile == "off":
                raise InputError(f"upscale: out of memory ({reason}); do not switch tiles off.")
            tile_px = min(tile_px, longest_px)
            self._tile_px = smaller_tile_px(tile_px, self.model.multiple_of_px)
            if self._tile_px is None:
                raise InputError(
                    f"upscale: not even a tile of {tile_px} px fits into memory ({reason}); free some, "
                    "or use --device cpu."
                )
            self._notify(f"Out of memory; going on with tiles of {self._tile_px} px.")

    def _tile_for(self, longest_px: int) -> int:
        """Return the largest tile to use for a picture of this longer side."""
        step_px = self.model.multiple_of_px
        whole_px = -(-longest_px // step_px) * step_px
        # A network that attends to the whole picture is only cut where it has to be.
        measure = self._tile == "auto" and self.model.tiling == "supported" and longest_px > _SMALL_PX
        if self._tile_px is None and measure:
            self._tile_px = largest_tile_px(
                self._in_range,
                self.model.channels,
                self.device,
                multiple_px=step_px,
                minimum_px=self.model.minimum_px,
            )
        return whole_px if self._tile_px is None else self._tile_px

    def _choose_half(self, precision: Precision) -> torch.dtype | None:
        """Return the half precision to use for pictures of 8 bit, None for float32."""
        if precision == "float32":
            return None
        if precision != "auto":
            reason = self._why_not(precision)
            if reason is not None:
                raise InputError(f"upscale: {precision} cannot be used: {reason}; use --precision auto.")
            return _DTYPES[precision]
        if self._why_not("float16") is None:
            return torch.float16
        if self._why_not("bfloat16") is None and self._ends_in_float32():
            return torch.bfloat16
        return None

    def _why_not(self, precision: str) -> str | None:
        """Return why a half precision cannot be used on this device with this model, or None."""
        if precision == "bfloat16":
            reason = why_not_bfloat16(self.device)
            supported = self.model.supports_bfloat16
        else:
            reason = why_not_float16(self.device)
            supported = self.model.supports_half
        if reason is None and not supported:
            reason = f"{self.model.architecture} does not support it"
        return reason

    def _ends_in_float32(self) -> bool:
        """Tell whether the last layer keeps float32: bfloat16 would round the output to steps of 1/256."""
        step_px = self.model.multiple_of_px
        side = -(-max(16, self.model.minimum_px) // step_px) * step_px
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16):
            return (
                self._running.net(torch.zeros(1, self.model.channels, side, side, device=self.device)).dtype
                == torch.float32
            )


def _channels_first(pixels: np.ndarray, alpha: np.ndarray | None, rows: slice, columns: slice) -> Tensor:
    """Return a part of a picture as float32 `[1, C, h, w]`, not scaled, alpha last if there is any."""
    part = pixels[rows, columns]
    if alpha is not None:
        part = np.concatenate((part, alpha[rows, columns, None]), axis=2)
    return torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1), np.float32))[None]


class _Running(nn.Module):
    """A network in the precision and memory layout that it is run in; float32 in, float32 out.

    Raises:
        FloatingPointError: the output is not finite. (Told before the output is clamped, which would hide infinity.)
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        # Channels-last is faster for networks of convolutions alone.
        attends = any(isinstance(module, nn.Linear | nn.MultiheadAttention) for module in net.modules())
        self.layout = torch.contiguous_format if attends else torch.channels_last
        self.net = net.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        self.dtype = torch.float32

    def forward(self, lr: Tensor) -> Tensor:
        lr = lr.contiguous(memory_format=self.layout)
        with torch.autocast(lr.device.type, self.dtype, enabled=self.dtype != torch.float32):
            sr = self.net(lr).float()
        if not bool(sr.isfinite().all()):
            raise FloatingPointError
        return sr


def parse_tile(text: str) -> Tile:
    """Read the option `--tile`.

    Raises:
        InputError: neither auto nor off nor a number.
    """
    if text == "auto" or text == "off":
        return text
    if not text.isdecimal():
        raise InputError(f"upscale: --tile must be auto, off or a number of pixels, got {text!r}.")
    return int(text)


def why_not_float16(device: torch.device) -> str | None:
    """Return why float16 is not computed natively on `device`, or None if it is."""
    if device.type == "cpu":
        return "float16 is for GPUs, the device is the CPU"
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (7, 0):
        return "the GPU is older than compute capability 7.0"
    return None


def filled(colors: Tensor, known: Tensor) -> Tensor:
    """Replace colors that mean nothing by those nearby, coarse where they are far ("push-pull").

    Gortler, Grzeszczuk, Szeliski and Cohen, "The lumigraph", 1996, section 3.4.

    Args:
        colors: `[N, C, H, W]`.
        known: bool `[N, 1, H, W]`, where a color is to be kept. With nothing known, nothing is changed.
    """
    if bool(known.all()) or not bool(known.any()):
        return colors
    weight = known.to(colors.dtype)
    share = functional.avg_pool2d(weight, 2, ceil_mode=True)
    coarse = functional.avg_pool2d(colors * weight, 2, ceil_mode=True) / share.clamp_min(1e-6)
    coarse = filled(coarse, share > 0)
    size = (colors.shape[2], colors.shape[3])
    return torch.where(known, colors, functional.interpolate(coarse, size, mode="bilinear"))
