"""Upscale an image to the wanted size: by a model, and resized where the model has another scale."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from selfsr.console import print_line
from selfsr.errors import InputError
from selfsr.images.files import FLOAT_SUFFIXES, DecodedImage
from selfsr.images.floats import FloatFormat
from selfsr.upscaling.float_images import FloatOptions, is_linear, quantize_float, upscale_float
from selfsr.upscaling.output_size import OutputSize
from selfsr.upscaling.plan import UpscaleJob
from selfsr.upscaling.resize_output import resize_output
from selfsr.upscaling.upscaler import OnTile, Upscaler


def choose_bits(target: Path, image: DecodedImage) -> int:
    """Return the bits per sample of the result; PNG has 16 for a float image, and JPEG, WebP and BMP 8."""
    if image.float_format is None or target.suffix.lower() in FLOAT_SUFFIXES:
        return image.bits
    return 16 if target.suffix.lower() == ".png" else 8


@dataclass(frozen=True)
class SizedUpscaler:
    """A model with the size of its outputs.

    Attributes:
        upscaler: the model on its device.
        output_size: of each image.
        seed: of the first sample, for models that sample.
        floats: how the samples of float images are understood.
        notify: called with a sentence about values that are clipped.
    """

    upscaler: Upscaler
    output_size: OutputSize
    seed: int = 0
    floats: FloatOptions = field(default_factory=FloatOptions)
    notify: Callable[[str], None] = print_line

    def upscale_file(self, image: DecodedImage, job: UpscaleJob, on_tile: OnTile | None = None) -> DecodedImage:
        """Upscale the image of a file, as its target stores it.

        Args:
            image: the image of any samples.
            job: the file; unfinished work is saved next to its target.
            on_tile: as in `Upscaler.upscale_image`.

        Raises:
            InputError: as in `Upscaler.upscale_image`, or samples that are not linear go to OpenEXR.
        """
        size = self.output_size.compute(image.height, image.width)
        image = self.upscaler.choose_seed(self.seed + job.sample, image)

        def upscale(seen: DecodedImage) -> DecodedImage:
            scratch = job.target.parent
            upscaled = self.upscaler.upscale_image(seen, scratch=scratch, on_tile=on_tile, target=job.target)
            return resize_output(upscaled, size, scratch=scratch)

        if image.float_format is None:
            return upscale(image)
        self._check_linear(image, job)
        result = upscale_float(image, upscale, self.floats)
        if job.target.suffix.lower() == ".exr":
            return _multiply_by_alpha(result)
        if job.target.suffix.lower() in FLOAT_SUFFIXES:
            return result
        quantized, share = quantize_float(result, choose_bits(job.target, image), self.floats)
        if share > 0:
            self.notify(
                f"{job.source}: {share:.1%} of the samples are outside of 0 to {self.floats.white:g} and were clipped; "
                "TIFF and OpenEXR outputs keep them (--format keep, or a name that ends so)."
            )
        return quantized

    def upscale_frame(self, frame: DecodedImage, size: tuple[int, int], job: UpscaleJob) -> DecodedImage:
        """Upscale a frame of an animation or a video to a size (height, width); nothing is saved of unfinished work."""
        scratch = job.target.parent
        frame = replace(self.upscaler.choose_seed(self.seed + job.sample, frame), exif=None)
        return resize_output(self.upscaler.upscale_image(frame, scratch=scratch), size, scratch=scratch)

    def _check_linear(self, image: DecodedImage, job: UpscaleJob) -> None:
        if job.target.suffix.lower() == ".exr" and not is_linear(image.float_format or FloatFormat(), self.floats):
            raise InputError(
                f"{job.target}: expected linear samples for OpenEXR, got those of {job.source}, which count as encoded "
                "in sRGB; add --transfer linear, or write TIFF."
            )


def _multiply_by_alpha(image: DecodedImage) -> DecodedImage:
    """Return a float image as OpenEXR stores it: colors are multiplied by alpha."""
    meaning = image.float_format or FloatFormat()
    pixels = image.pixels
    if image.alpha is not None and not meaning.is_associated:
        pixels = np.multiply(pixels, image.alpha[:, :, None], dtype=np.float32).astype(pixels.dtype)
    return replace(image, pixels=pixels, float_format=FloatFormat(True, True, meaning.chromaticities))
