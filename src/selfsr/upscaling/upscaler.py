"""Run a model on images of any size, depth and number of channels, within the available memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selfsr import __version__
from selfsr.console import print_line
from selfsr.errors import InputError
from selfsr.images.color_fix import fix_colors
from selfsr.images.exif import add_software
from selfsr.images.files import DecodedImage, tensor_to_pixels
from selfsr.images.large import new_array
from selfsr.images.resize import imresize
from selfsr.machine.arithmetic import TRUE_FLOAT32
from selfsr.machine.memory import is_out_of_memory, release_cached_memory
from selfsr.nets.diffusion.sampling import get_sampling, set_sampling
from selfsr.nets.weights.model import Model
from selfsr.upscaling.alpha import fill_unknown
from selfsr.upscaling.global_colors import match_moments
from selfsr.upscaling.network import CastNetwork, hash_image, hash_weights, read_channels_first
from selfsr.upscaling.options import RequestedPrecision
from selfsr.upscaling.partial import ArrayShape, PartialOutput, keep_on_interruption
from selfsr.upscaling.precision import choose_half
from selfsr.upscaling.tile_size import LEAST_TILE_PX, Tile, find_largest_tile_px, halve_tile_px
from selfsr.upscaling.tiling import OVERLAP_PX, TileProgress, self_ensemble, upscale_blocks, upscale_tiled

OnTile = Callable[[int, int], None]
Result = TypeVar("Result")

# Images up to this side are upscaled in one piece, without measuring the memory first.
_SMALL_PX = 128


class Upscaler:
    """A model on a device. Calls upscale tensors, `upscale_image` upscales images.

    One instance is for one thread at a time. The network of the model is moved to the device.

    Args:
        model: the model.
        device: the device that it runs on.
        precision: precision of the network; "auto" takes float16 or bfloat16 if the device computes it natively, the
            model supports it and its rounding is invisible at 8 bits, and float32 for 16-bit images.
        tile: the largest tile in input pixels; "auto" finds what fits into free memory, "off" uses no tiles.
        overlap_px: pixels that neighboring tiles share, at most half a tile (see `tiling`); None takes 64.
        ensemble: whether to average over the eight flips and rotations of each tile (EDSR, section 3.4); 8 times
            slower.
        sampling: how a network that samples does so: `seed`, `steps` and `color_fix` of `Sampling`. Others have none.
        notify: called with a sentence if the tile size or the precision changes during the work.

    Raises:
        InputError: the precision is not available on this device, or tile and overlap do not fit.

    Example:
        >>> from selfsr.nets.edsr import EdsrSpec
        >>> from selfsr.nets.weights.model import Model
        >>> net = EdsrSpec(blocks=1, features=8).build(2)
        >>> facts = dict(tiling="supported", multiple_of_px=1, minimum_px=1, square=False)
        >>> facts |= dict(supports_half=False, supports_bfloat16=True)
        >>> model = Model(net, architecture="EDSR", scale=2, channels=3, **facts)
        >>> upscale = Upscaler(model, device=torch.device("cpu"), precision="float32", tile="off")
        >>> upscale(torch.zeros(1, 3, 8, 10)).shape
        torch.Size([1, 3, 16, 20])
    """

    def __init__(
        self,
        model: Model,
        *,
        device: torch.device,
        precision: RequestedPrecision = "auto",
        tile: Tile = "auto",
        overlap_px: int | None = None,
        ensemble: bool = False,
        sampling: Mapping[str, Any] | None = None,
        notify: Callable[[str], None] = print_line,
    ) -> None:
        least_px = max(LEAST_TILE_PX, model.multiple_of_px)
        if isinstance(tile, int) and tile < least_px:
            raise InputError(
                f"upscale: expected a tile of auto, off or at least {least_px} px, got {tile}; use a larger tile."
            )
        if overlap_px is not None and (overlap_px < 0 or (isinstance(tile, int) and overlap_px > tile // 2)):
            raise InputError(
                f"upscale: expected an overlap from 0 to half of the tile, got {overlap_px} px with tile {tile}; "
                "use a smaller overlap."
            )
        if model.is_sampled and ensemble:
            raise InputError(
                "upscale: the self-ensemble is for models without random numbers, got one that samples; leave it out, "
                "or average several samples."
            )
        set_sampling(model.net, **(sampling or {}))
        # Over the complete image; the network would match each tile.
        self._matches_moments: bool = model.is_diffusion and get_sampling(model.net).color_fix == "adain"
        if self._matches_moments:
            set_sampling(model.net, color_fix="none")
        self.model = model
        self.device = device
        self.overlap_px: int = OVERLAP_PX if overlap_px is None else overlap_px
        self._tile = tile
        # The largest tile that is known to fit, or None.
        self._tile_px = tile // model.multiple_of_px * model.multiple_of_px if isinstance(tile, int) else None
        self._notify = notify
        self._network = CastNetwork(model.net.to(device).eval())
        self._upscale_finite = replace(model, net=self._network).upscale
        self._upscale = self_ensemble(self._upscale_in_range) if ensemble else self._upscale_in_range
        self._precision_option, self._is_ensemble = precision, ensemble
        self._half = choose_half(precision, model, self._network, device)

    @property
    def precision(self) -> str:
        """The precision for 8-bit images."""
        return str(self._half or torch.float32).removeprefix("torch.")

    def describe_precision(self) -> str:
        """Return the precision, and that of 16-bit images where it is another one."""
        fine = self._choose_dtype(16)
        other = "" if fine == self._choose_dtype(8) else f" ({str(fine).removeprefix('torch.')} for 16-bit images)"
        return self.precision + other

    def _choose_dtype(self, bits: int) -> torch.dtype:
        """Return the dtype of the network for images of 8, 16 or 32 bits."""
        is_fine = self._precision_option == "auto" and bits > 8
        return torch.float32 if self._half is None or is_fine else self._half

    def __call__(self, lr: Tensor) -> Tensor:
        """Upscale float `[N, C, h, w]` in [0, 1], C 1 or 3, to float32 `[N, C, s h, s w]`."""
        self._network.dtype = self._half or torch.float32

        def attempt(tile_px: int) -> Tensor:
            return upscale_tiled(
                self._upscale,
                lr.to(self.device),
                scale=self.model.scale,
                tile_px=tile_px,
                overlap_px=min(self.overlap_px, tile_px // 2),
                multiple_px=self.model.multiple_of_px,
                on_position=self._move_noise,
            )

        with torch.inference_mode(), TRUE_FLOAT32.use():
            sr = self._retry_smaller(attempt, max(lr.shape[-2:]))
            if not self._matches_moments:
                return sr
            enlarged = imresize(lr.to(self.device, torch.float32), self.model.scale).clamp(0, 1)
            return fix_colors(sr.float(), enlarged, "adain").clamp(0, 1)

    def upscale_image(
        self, image: DecodedImage, *, scratch: Path, on_tile: OnTile | None = None, target: Path | None = None
    ) -> DecodedImage:
        """Upscale an image; gray stays gray, 16 bits stay 16 bits, alpha, ICC profile and metadata are kept.

        Floating point samples must be float32 in [0, 1], encoded as in sRGB, with colors that are not multiplied by
        alpha; `upscale_float` makes such an image of others.

        The model also upscales alpha, clamped to the values of its neighborhood, so that opaque stays opaque. First,
        nearby colors replace the colors of fully transparent pixels, which are often black, so that these do not bleed
        into visible pixels.

        Args:
            image: an image of any size; only tiles of it are converted to floats.
            scratch: folder for a temporary file, if the output does not fit into memory.
            on_tile: called with the number of finished tiles and of all tiles.
            target: the file that gets the result. Work that takes long is saved in a folder next to it, and an
                interrupted call continues there with the same result; `remove_partial` removes the folder.

        Raises:
            InputError: the smallest tile does not fit into memory, the output has NaN or infinity, or another process
                works on `target`.
            OSError: `scratch` has no space.
        """
        self._network.dtype = self._choose_dtype(image.bits)
        scale, dtype = self.model.scale, image.pixels.dtype
        size = (image.height * scale, image.width * scale)
        shapes: dict[str, ArrayShape] = {"pixels": ((*size, image.channels), dtype)}
        if image.alpha is not None:
            shapes["alpha"] = (size, dtype)
        if self._matches_moments:  # the only color fix that needs the complete output, before it is rounded
            shapes["unfixed"] = ((*size, image.channels), np.dtype(np.float32))
        if target is None:
            arrays = {name: new_array(*shape, scratch) for name, shape in shapes.items()}
            self._upscale_into(arrays, image, on_tile, None)
        else:
            partial = PartialOutput(target, shapes, lambda: self._describe_work(image), self._notify)
            arrays = partial.arrays
            with keep_on_interruption(partial):
                self._upscale_into(arrays, image, on_tile, partial)
            partial.release()
        return replace(image, pixels=arrays["pixels"], alpha=arrays.get("alpha"))

    def _describe_work(self, image: DecodedImage) -> dict[str, Any]:
        """Return the facts that the output depends on."""
        return {
            "version": __version__,
            "model": hash_weights(self.model.net),
            "input": hash_image(image.pixels, image.alpha),
            "options": [self._tile, self.overlap_px, self._precision_option, self._is_ensemble, self.device.type],
            "sampling": str(get_sampling(self.model.net)) if self.model.is_diffusion else None,
        }

    def _upscale_into(
        self, arrays: dict[str, np.ndarray], image: DecodedImage, on_tile: OnTile | None, partial: PartialOutput | None
    ) -> None:
        """Upscale into `pixels`, `alpha` and `unfixed` of `arrays`, from where `partial` stopped."""
        scale, peak = self.model.scale, image.peak
        alpha = image.alpha if image.alpha is not None and int(image.alpha.min()) < peak else None
        if "alpha" in arrays and alpha is None:
            arrays["alpha"][:] = peak

        def read(rows: slice, columns: slice) -> Tensor:
            return read_channels_first(image.pixels, alpha, rows, columns).to(self.device) / peak

        def write(rows: slice, columns: slice, block: Tensor) -> None:
            if "unfixed" in arrays:
                arrays["unfixed"][rows, columns] = block[0, : image.channels].permute(1, 2, 0).cpu().numpy()
            levels = tensor_to_pixels(block[0], image.bits)
            arrays["pixels"][rows, columns] = levels[..., : image.channels]
            if alpha is not None:
                arrays["alpha"][rows, columns] = levels[..., image.channels]

        def write_rows(rows: slice, block: Tensor) -> None:
            arrays["pixels"][rows] = tensor_to_pixels(block[0], image.bits)

        def save(progress: TileProgress) -> None:
            if partial is not None:
                partial.options["precision"] = str(self._network.dtype)
                partial.save(progress)

        def attempt(tile_px: int) -> None:
            overlap_px = min(self.overlap_px, tile_px // 2)
            options = {"tile_px": tile_px, "overlap_px": overlap_px, "precision": str(self._network.dtype)}
            start = None if partial is None else partial.start_from(options)
            upscale_blocks(
                self._upscale if alpha is None else self._upscale_with_alpha,
                read,
                write,
                height=image.height,
                width=image.width,
                scale=scale,
                tile_px=tile_px,
                overlap_px=overlap_px,
                multiple_px=self.model.multiple_of_px,
                start=None if start is None else start.to(self.device),
                on_position=self._move_noise,
                on_tile=on_tile,
                on_progress=save,
            )

        with torch.inference_mode(), TRUE_FLOAT32.use():
            self._adopt(partial)
            self._retry_smaller(attempt, max(image.height, image.width))
            if "unfixed" in arrays:
                lr_rows = lambda rows: read(rows, slice(None))[:, : image.channels]  # noqa: E731
                match_moments(arrays["unfixed"], lr_rows, scale, write_rows)

    def _adopt(self, partial: PartialOutput | None) -> None:
        """Use the tile size and the precision that interrupted work chose itself."""
        options = {} if partial is None else partial.options
        if self._tile == "auto" and "tile_px" in options:
            self._tile_px = options["tile_px"]
        if options.get("precision") == str(torch.float32):
            self._network.dtype = torch.float32

    def choose_seed(self, seed: int, image: DecodedImage) -> DecodedImage:
        """Sample with this seed from now on; return the image with EXIF data that name model, seed and options.

        Other models than those of diffusion, and their images, stay as they are.
        """
        if not self.model.is_diffusion:
            return image
        set_sampling(self.model.net, seed=seed)
        sampling = get_sampling(self.model.net)
        fix = "adain" if self._matches_moments else sampling.color_fix
        steps = "all steps" if sampling.steps is None else f"{sampling.steps} step{'s' * (sampling.steps > 1)}"
        name = f"{self.model.architecture} x{self.model.scale}"
        drawn = f"seed {seed}, {steps}, " if self.model.is_sampled else ""
        text = f"selfsr {__version__}: {name}, {drawn}color fix {fix}"
        return replace(image, exif=add_software(image.exif, text))

    def _move_noise(self, row: int, column: int) -> None:
        """Tell a network that samples where in the image its next tile is."""
        scale = self.model.scale
        set_sampling(self.model.net, origin_px=(row * scale, column * scale))

    def _upscale_in_range(self, lr: Tensor) -> Tensor:
        """Upscale a tile; if half precision leaves its range, use float32 from now on."""
        try:
            return self._upscale_finite(lr)
        except FloatingPointError as error:
            if self._half is None or self._network.dtype == torch.float32:
                raise InputError(
                    f"upscale: expected a finite output of {self.model.architecture}, got NaN or infinity; "
                    "use another weights file."
                ) from error
        self._notify(f"{self.model.architecture} leaves the range of {self.precision}; continuing in float32.")
        self._half, self._network.dtype = None, torch.float32
        return self._upscale_in_range(lr)

    def _upscale_with_alpha(self, lr: Tensor) -> Tensor:
        """Upscale `[1, C + 1, h, w]` with alpha as the last channel."""
        colors, alpha = lr[:, :-1], lr[:, -1:]
        sr = self._upscale(fill_unknown(colors, alpha > 0))
        low, high = -functional.max_pool2d(-alpha, 3, 1, 1), functional.max_pool2d(alpha, 3, 1, 1)
        if bool((low == high).all()):
            return torch.cat([sr, functional.interpolate(alpha, scale_factor=self.model.scale)], 1)
        low, high = (functional.interpolate(x, scale_factor=self.model.scale) for x in (low, high))
        # A sample of alpha would have other details than the sample of the colors.
        sr_alpha = imresize(alpha, self.model.scale) if self.model.is_diffusion else self._upscale(alpha)
        return torch.cat([sr, sr_alpha.clamp(low, high)], 1)

    def _retry_smaller(self, attempt: Callable[[int], Result], longest_px: int) -> Result:
        """Return `attempt(tile_px)`; repeat it with smaller tiles while memory runs out."""
        while True:
            tile_px = self._choose_tile_px(longest_px)
            try:
                return attempt(tile_px)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            # Not inside `except`: the error keeps the tensors of the failed attempt alive.
            release_cached_memory()
            if self._tile == "off":
                raise InputError(
                    f"upscale: expected an image that fits into memory without tiles, got {reason}; use --tile auto."
                )
            tile_px = min(tile_px, longest_px)
            self._tile_px = halve_tile_px(tile_px, self.model.multiple_of_px)
            if self._tile_px is None:
                raise InputError(
                    f"upscale: expected memory for a tile of {tile_px} px, got {reason}; close other programs, "
                    "or use --device cpu."
                )
            self._notify(f"Out of memory; continuing with tiles of {self._tile_px} px.")

    def _choose_tile_px(self, longest_px: int) -> int:
        """Return the largest tile to use for an image of this longer side."""
        step_px = self.model.multiple_of_px
        full_px = -(-longest_px // step_px) * step_px
        # A network that attends to the full image gets tiles only if it has to.
        measure = self._tile == "auto" and self.model.tiling == "supported" and longest_px > _SMALL_PX
        if self._tile_px is None and measure:
            self._tile_px = find_largest_tile_px(
                self._upscale_in_range,
                self.model.channels,
                self.device,
                multiple_px=step_px,
                minimum_px=self.model.minimum_px,
            )
        return full_px if self._tile_px is None else self._tile_px
