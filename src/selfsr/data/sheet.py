"""Draw the samples of a training: input and ground truth of each, as the run sees them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfsr.data.augment import AugmentSpec
from selfsr.data.datasets import Dataset
from selfsr.data.loader import Loader
from selfsr.data.sources import MixedDataset
from selfsr.data.steps import RawBatch
from selfsr.degrade.contact_sheet import draw_page
from selfsr.images.files import DecodedImage, write_image

# Samples in a row, each of two images.
_COLUMNS = 3
_NAME_CHARACTERS = 40


def write_sheet(
    path: Path,
    datasets: Sequence[Dataset | MixedDataset],
    *,
    augment: AugmentSpec | None,
    batch: int,
    seed: int,
    first_step: int,
    samples: int,
) -> int:
    """Write an image with the input and the ground truth of the first samples of a run.

    Args:
        path: the image file to write.
        datasets: the datasets of the run, one for each scale.
        augment: the mixes of samples.
        batch: samples of a step.
        seed: the seed of the run.
        first_step: the first step that is shown, counted from 1.
        samples: number of samples.

    Returns:
        The number of samples that are shown.

    Raises:
        InputError: no image can be read.
    """
    loader = Loader(datasets, batch=batch, seed=seed, start_step=first_step - 1, workers=0, augment=augment)
    cells: list[list[tuple[np.ndarray, str]]] = []
    for raw in loader:
        (made,) = loader.prepare(raw, torch.device("cpu"))
        captions = _describe(loader.datasets[raw.scale_index], raw)
        for lr, hr, caption in zip(made.lr, made.hr, captions, strict=True):
            cells.append([(_to_pixels(lr), f"input, {lr.shape[-1]} px"), (_to_pixels(hr), caption)])
        if len(cells) >= samples:
            break
    loader.close()
    cells = cells[:samples]
    starts = range(0, len(cells), _COLUMNS)
    rows = [[cell for pair in cells[start : start + _COLUMNS] for cell in pair] for start in starts]
    write_image(path, DecodedImage(draw_page(rows)))
    return len(cells)


def _describe(dataset: Dataset | MixedDataset, raw: RawBatch) -> list[str]:
    """Return a caption for each sample: its file, its source if there are several, and its mix."""
    sources = {place: part.source for part in raw.parts for place in part.places}
    mixes = {mix.place: mix for mix in raw.mixes}
    partners = {mix.partner for mix in raw.mixes}
    captions = []
    for place, path in enumerate(raw.paths):
        if place in partners:
            continue
        lines = [path.name[-_NAME_CHARACTERS:]]
        if isinstance(dataset, MixedDataset):
            lines.append(f"source {list(dataset.sources)[sources[place]]}")
        if mix := mixes.get(place):
            other = "" if mix.partner is None else f", {raw.paths[mix.partner].name[-_NAME_CHARACTERS:]}"
            lines.append(f"{mix.describe()}{other}")
        captions.append("\n".join(lines))
    return captions


def _to_pixels(image: Tensor) -> np.ndarray:
    """Return `[C, H, W]` in [0, 1] as float `[H, W, 3]`."""
    return image.clamp(0, 1).permute(1, 2, 0).expand(-1, -1, 3).numpy()
