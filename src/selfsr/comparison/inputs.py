"""Find the ground truths, inputs and finished outputs of a comparison, and check them before the first model runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfsr.comparison.candidates import Candidate
from selfsr.degrade.base import PresetSpec
from selfsr.errors import InputError
from selfsr.evaluation.degraded import DegradedInputs
from selfsr.evaluation.files import check_headers
from selfsr.evaluation.sets import ImageSet, find_sets, name_images
from selfsr.images.files import read_header
from selfsr.images.pairing import match_lr, pair_lr
from selfsr.images.paths import list_images, missing_path_error


@dataclass(frozen=True)
class ComparedSet:
    """One set of images.

    Attributes:
        name: name of the set.
        folder: the folder of the files that name the images.
        names: names of the images.
        hr: ground truths; None without them.
        lr: inputs; None where they are made from `hr`, or where there are only finished images.
        degraded: makes the inputs from `hr` by a degradation; None reads them, or makes them by bicubic.
        finished: for each folder of finished images by candidate, its image for each name.
    """

    name: str
    folder: Path
    names: list[str]
    hr: list[Path] | None
    lr: list[Path] | None
    degraded: DegradedInputs | None = None
    finished: dict[str, list[Path]] = field(default_factory=dict)


def find_inputs(
    candidates: Sequence[Candidate],
    data: Sequence[str],
    lr: Path | None,
    scale: int,
    degradation: PresetSpec | None = None,
    seed: int = 0,
) -> dict[str, ComparedSet]:
    """Find the images of each set, and check the headers of all files.

    Args:
        candidates: the models and folders of the comparison.
        data: folders of ground truths, in the form of `find_sets`; empty to compare without ground truth.
        lr: inputs: a folder, or one image without `data`. None makes them by bicubic, or uses finished images only.
        scale: the upscaling factor.
        degradation: makes the inputs from the ground truths, instead of bicubic.
        seed: seed of the degradation.

    Returns:
        The sets by name.

    Raises:
        InputError: there are no images, an image has no partner in a folder, or sizes do not fit; the sentence names
            the first one.
    """
    if data:
        sets = {
            name: _pair_with_hr(
                name, one, lr, scale, None if degradation is None else DegradedInputs(degradation, one.folder, seed)
            )
            for name, one in find_sets(list(data)).items()
        }
    else:
        only = _list_without_hr(candidates, lr)
        sets = {only.name: only}
    for one in sets.values():
        for candidate in candidates:
            if candidate.weights is None:
                one.finished[candidate.name] = _match_finished(one, candidate, scale)
    for one in sets.values():
        _check_sizes(one, scale)
    return sets


def _pair_with_hr(
    name: str, one: ImageSet, lr: Path | None, scale: int, degraded: DegradedInputs | None
) -> ComparedSet:
    lr_paths = None
    if lr is not None:
        folders = (lr / name, lr / one.folder.name)
        folder = next((subfolder for subfolder in folders if subfolder.is_dir()), lr)
        lr_paths = pair_lr(one.folder, one.paths, folder, scale)
    return ComparedSet(name, one.folder, name_images(one.paths), one.paths, lr_paths, degraded)


def _list_without_hr(candidates: Sequence[Candidate], lr: Path | None) -> ComparedSet:
    """Return the set of the inputs; without models, the set of the finished images."""
    model = next((one for one in candidates if one.weights is not None), None)
    if lr is None:
        if model is not None:
            raise InputError(
                f"compare: expected images for {model.name}, got none; name HR images with --data, or LR images or "
                "photos with --lr."
            )
        folder = Path(candidates[0].source)
        paths = list(candidates[0].images)
        return ComparedSet(folder.resolve().name, folder, name_images(paths), None, None)
    if not lr.exists():
        raise missing_path_error(lr, "a folder of images or an image")
    folder, paths = (lr, list_images(lr)) if lr.is_dir() else (lr.parent, [lr])
    return ComparedSet(folder.resolve().name, folder, name_images(paths), None, paths)


def _match_finished(one: ComparedSet, candidate: Candidate, scale: int) -> list[Path]:
    """Return the finished image for each image of a set, from the subfolder of its name if there is one."""
    folder = Path(candidate.source)
    subfolder = next((folder / name for name in (one.name, one.folder.name) if (folder / name).is_dir()), None)
    if subfolder is not None:
        folder = subfolder
    keys = one.hr or one.lr
    if keys is None and candidate.source == str(one.folder):
        return list(candidate.images)
    images = [path for path in candidate.images if folder in path.parents]
    names = keys if keys is not None else list_images(one.folder)
    pairs, problems = match_lr(one.folder, names, folder, images, scale)
    problems = {path: reason for path, reason in problems.items() if path in names}
    if problems:
        more = f" ({len(problems) - 1} more like this)" if len(problems) > 1 else ""
        path = next(iter(problems))
        raise InputError(
            f"{candidate.source}: expected one finished image for each image of {one.folder}, got none or several for "
            f"{path.relative_to(one.folder)}{more}; name it {path.stem}.png or {path.stem}_x{scale}.png."
        )
    return [pairs[path] for path in names]


def _check_sizes(one: ComparedSet, scale: int) -> None:
    """Check that every header can be read and that finished images have the size of an output."""
    if one.hr is not None:
        check_headers(one.hr, one.lr, scale=scale)
        if one.degraded is not None:
            one.degraded.check(one.hr, scale)
    for index in range(len(one.names)):
        if one.hr is not None:
            header = read_header(one.hr[index])
            size, full = (header.height // scale * scale, header.width // scale * scale), (header.height, header.width)
        elif one.lr is not None:
            header = read_header(one.lr[index])
            size = full = (header.height * scale, header.width * scale)
        else:
            header = read_header(next(iter(one.finished.values()))[index])
            size = full = (header.height, header.width)
        for paths in one.finished.values():
            own = read_header(paths[index])
            if (own.height, own.width) not in (size, full):
                raise InputError(
                    f"{paths[index]}: expected {size[0]} x {size[1]} pixels (height x width), the size of the output "
                    f"for {one.names[index]} at scale {scale}, got {own.height} x {own.width}; check --scale, or make "
                    "the image again."
                )
