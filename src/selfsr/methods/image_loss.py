"""Which predictions of a diffusion step have image losses, and on which part of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.masks import edge_mask
from selfsr.methods.contract import MethodSetup, RunOptions
from selfsr.nets.diffusion.sampled import SampledNetwork
from selfsr.nets.diffusion.spaces import AutoencoderError, AutoencoderSpec, LatentSpace, Space, build_space
from selfsr.spec import Spec, expand_home
from selfsr.step import Batch
from selfsr.terms import Term
from selfsr.terms.objective import Objective

_LEAST_CROP_PX = 64
# Latent pixels around a window that are decoded with it and then left out, since convolutions see their neighbors.
_MARGIN = 8


class DecodeSpec(Spec):
    """On which part of an image the terms are computed, and how the decoder saves memory."""

    crop_px: PositiveInt | None = Field(
        None,
        ge=_LEAST_CROP_PX,
        description="side of the part of each image that has the terms, the one with the most edges; null is all of "
        "it. Lower it if the decoder needs too much memory",
    )
    checkpointing: bool = Field(
        True, description="recompute the decoder in the backward pass: less memory, a third more time for the decoder"
    )

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.crop_px is not None and self.crop_px % _MARGIN:
            raise ValueError(f"crop_px must be a multiple of {_MARGIN}, got {self.crop_px}; change it")
        return self


class ImageLossSpec(DecodeSpec):
    """Which predictions have the terms, with which weight, and on which part."""

    max_noise: PositiveFloat | None = Field(
        None,
        description="largest noise, kappa sqrt(eta), at which a sample has the terms; null is any. At high noise the "
        "prediction is a blurred estimate. For residual_shifting",
    )
    max_gain: PositiveFloat | None = Field(
        None,
        description="largest gain, by which an error of predicted noise grows in the prediction, at which a sample has "
        "the terms; null is 1, about the first third of Stable Diffusion's times, and 15 is all of them. For "
        "latent_diffusion",
    )
    weigh: Literal["none", "snr"] = Field(
        "none",
        description="factor of the terms' gradient by noise: none, or snr for min(1, sqrt(SNR)), which fades them out "
        "towards high noise",
    )
    tiny_decoder: Path | None = Field(
        None,
        description="folder of an AutoencoderTiny of diffusers for the same latents, such as TAESD, which decodes for "
        "the terms: far less memory, with a bias; outputs are never decoded by it. null takes the autoencoder",
    )

    @field_validator("tiny_decoder")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return None if path is None else expand_home(path)


def check_terms(terms: Mapping[str, Term], image_loss: DecodeSpec, run: RunOptions) -> None:
    """Check that image losses have terms, and that no term needs what a prediction lacks.

    Raises:
        ValueError: an option of the recipe does not fit; the message has its key, the value and the advice.
    """
    # By value: the recipe in a run folder states every default.
    defaults = {name: field.default for name, field in type(image_loss).model_fields.items()}
    changed = [name for name, default in defaults.items() if getattr(image_loss, name) != default]
    if changed and not terms:
        raise ValueError(
            f"method.image_loss.{changed[0]} does nothing without method.terms, got "
            f"{getattr(image_loss, changed[0])}; add a term or remove it"
        )
    for name, term in terms.items():
        key = f"method.terms.{name} ({term.kind})"
        if term.needs_ema:
            raise ValueError(f"{key} needs the output of the EMA, which a diffusion step does not have; remove it")
        if term.normalizes:
            raise ValueError(f"method.terms.{name}.pace.normalize must be false in a diffusion step, got true")
        if image_loss.crop_px is not None and image_loss.crop_px < term.minimum_px:
            raise ValueError(
                f"method.image_loss.crop_px must be at least {term.minimum_px} for {key}, got {image_loss.crop_px}"
            )
    crop_px = image_loss.crop_px
    for scale, side_px in run.crops_px.items():
        if crop_px is not None and (crop_px > side_px or crop_px % scale):
            raise ValueError(
                f"method.image_loss.crop_px must be at most crop_px {side_px} and a multiple of the scale {scale}, got "
                f"{crop_px}"
            )


def check_crop(setup: MethodSetup) -> SampledNetwork:
    """Return the network, after a check that crops need no padding, which sampling adds and training does not.

    Raises:
        InputError: a side of the crop is not a multiple of what the network needs.
    """
    net = setup.generator
    assert isinstance(net, SampledNetwork)
    multiple_px = net.multiple_of_px * net.scale
    if setup.crop_px % multiple_px:
        raise InputError(
            f"crop_px: expected a multiple of {multiple_px} for this network, which halves the sides of its input, got "
            f"{setup.crop_px}; change it."
        )
    return net


def open_tiny_decoder(path: Path, space: Space, device: torch.device) -> LatentSpace:
    """Return the space of an AutoencoderTiny, which decodes the values of another space.

    Raises:
        InputError: it is missing, is no AutoencoderTiny, or is for latents with other channels or of another size.
    """
    try:
        with torch.device("cpu"):
            tiny = build_space(AutoencoderSpec(autoencoder=path), 3)  # pyright: ignore[reportCallIssue]
    except AutoencoderError as error:
        raise InputError(str(error).replace("network.space.autoencoder", "method.image_loss.tiny_decoder")) from error
    assert isinstance(tiny, LatentSpace)
    kind, sizes = type(tiny.net).__name__, (tiny.channels, tiny.downscale)
    if kind != "AutoencoderTiny" or sizes != (space.channels, space.downscale):
        raise InputError(
            f"method.image_loss.tiny_decoder: expected an AutoencoderTiny with {space.channels} channels at "
            f"1/{space.downscale}, as the network's latents, got {kind} with {sizes[0]} at 1/{sizes[1]} in {path}; use "
            "the one for these latents, or remove it."
        )
    tiny.net.to(device)
    return tiny


@dataclass(frozen=True)
class Window:
    """A square part of an image, in pixels of the ground truth.

    Attributes:
        top: first row.
        left: first column.
        side: rows and columns.
    """

    top: int
    left: int
    side: int

    def cut(self, image: Tensor, shrink: int = 1) -> Tensor:
        """Return the part of `[C, H, W]`, whose sides are those of the ground truth over `shrink`."""
        top, left, side = self.top // shrink, self.left // shrink, self.side // shrink
        return image[:, top : top + side, left : left + side]


class PartDecoder:
    """Cuts the parts that have terms out of batches, and decodes them.

    Args:
        net: the network.
        objective: its terms.
        spec: which part.
        space: decodes the values; that of the network, or another one for the same values.
    """

    def __init__(self, net: SampledNetwork, objective: Objective, spec: DecodeSpec, space: Space) -> None:
        self._net = net
        self._space = space
        self._objective = objective
        self._spec = spec

    def crop(self, batch: Batch) -> tuple[Batch, list[Window] | None]:
        """Return the part of each image that the terms see, and where it is; None is the complete image."""
        crop_px = self._spec.crop_px
        if crop_px is None or crop_px >= batch.hr.shape[-1] or not len(batch.hr):
            return batch, None
        multiple_px = math.lcm(self._space.downscale, self._net.scale)
        windows = find_windows(batch, crop_px, multiple_px, self._objective.find_mask(batch))
        return crop_batch(batch, windows), windows

    def decode(self, values: Tensor, windows: list[Window] | None) -> Tensor:
        """Return the images of values `[n, c, h, w]`, or their parts, float32 in [0, 1] but not clamped."""
        space, checkpointing = self._space, self._spec.checkpointing
        if not len(values):
            return values.new_zeros(0, self._net.channels, 1, 1)
        if windows is None:
            return space.decode(values, checkpointing=checkpointing)
        values, offsets = cut_values(values, windows, space.downscale)
        images = space.decode(values, checkpointing=checkpointing)
        return torch.stack([window.cut(image) for window, image in zip(offsets, images, strict=True)])


def find_windows(batch: Batch, side_px: int, multiple_px: int, mask: Tensor | None) -> list[Window]:
    """Return the part of each image with the most masked pixels; the first one of several.

    Args:
        batch: the images.
        side_px: side of the parts.
        multiple_px: the parts start at multiples of this.
        mask: bool `[N, 1, H, W]`; None takes the edges of the ground truth.
    """
    mask = edge_mask(batch.hr) if mask is None else mask
    sums = functional.avg_pool2d(mask.float(), side_px, stride=multiple_px)[:, 0]
    columns = sums.shape[-1]
    best = sums.flatten(1).argmax(dim=1).tolist()
    return [Window(place // columns * multiple_px, place % columns * multiple_px, side_px) for place in best]


def crop_batch(batch: Batch, windows: list[Window]) -> Batch:
    """Return the parts of all images of a batch."""
    scale = batch.scale
    hr = torch.stack([window.cut(image) for window, image in zip(windows, batch.hr, strict=True)])
    lr = torch.stack([window.cut(image, scale) for window, image in zip(windows, batch.lr, strict=True)])
    mask = batch.mask
    if mask is not None:
        mask = torch.stack([window.cut(image) for window, image in zip(windows, mask, strict=True)])
    return replace(batch, hr=hr, lr=lr, mask=mask)


def cut_values(values: Tensor, windows: list[Window], downscale: int) -> tuple[Tensor, list[Window]]:
    """Cut the values of each window with a margin, for the decoder.

    Args:
        values: `[N, c, h, w]`, of the complete images.
        windows: the part of each image.
        downscale: side of an image over that of its values; without a decoder, 1, there is no margin.

    Returns:
        The values `[N, c, k, k]`, and where the windows are in the images that are decoded from them.
    """
    margin = _MARGIN if downscale > 1 else 0
    side = windows[0].side // downscale
    padded = min(side + 2 * margin, values.shape[-2], values.shape[-1])
    parts, offsets = [], []
    for window, image in zip(windows, values, strict=True):
        corner = [
            min(max(start // downscale - margin, 0), length - padded)
            for start, length in ((window.top, values.shape[-2]), (window.left, values.shape[-1]))
        ]
        parts.append(image[:, corner[0] : corner[0] + padded, corner[1] : corner[1] + padded])
        offsets.append(Window(window.top - corner[0] * downscale, window.left - corner[1] * downscale, window.side))
    return torch.stack(parts), offsets
