"""Choose the file that each upscaled image is written to, before anything is read or written."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from selfsr.errors import InputError
from selfsr.images.formats import UPSCALED_FORMATS, VIDEO_SUFFIXES
from selfsr.images.paths import SUFFIXES, is_image_name, is_inside, list_sources, missing_path_error
from selfsr.upscaling.kinds import OUTPUT_SUFFIXES, JobKind, choose_suffix, find_kind
from selfsr.upscaling.options import OutputFormat
from selfsr.upscaling.video.run import CONTAINERS

ExistingFiles = Literal["refuse", "overwrite", "skip"]

# How many renamed images a sentence names.
_SHOWN = 4


@dataclass(frozen=True)
class UpscaleJob:
    """One file to upscale.

    Attributes:
        source: the file to read.
        target: the file to write.
        sample: number of the sample, from 0 on, of a model that samples.
        model: number of the model, from 0 on.
        kind: whether all frames are upscaled, or one image.
    """

    source: Path
    target: Path
    sample: int = 0
    model: int = 0
    kind: JobKind = "image"


@dataclass(frozen=True)
class UpscalePlan:
    """The files to upscale.

    Attributes:
        jobs: the files, model by model.
        skipped: number of images that are skipped because their target exists.
        renamed: the jobs whose target has another name, because several images would have had the same.
    """

    jobs: list[UpscaleJob]
    skipped: int
    renamed: list[UpscaleJob]

    def describe_renamed(self) -> str | None:
        """Return a sentence about the images whose target has another name, or None if there are none."""
        if not self.renamed:
            return None
        shown = ", ".join(f"{job.source} as {job.target.name}" for job in self.renamed[:_SHOWN])
        more = f" and {len(self.renamed) - _SHOWN:,} more" if len(self.renamed) > _SHOWN else ""
        return f"Images with the same name are kept apart: {shown}{more}."


def plan_jobs(
    inputs: Sequence[Path],
    output: Path,
    suffix: OutputFormat | None = None,
    existing: ExistingFiles = "refuse",
    samples: int = 1,
    *,
    name_suffix: str = "",
    models: Sequence[str] = (),
) -> UpscalePlan:
    """Choose the target of each image, before anything is decoded or written.

    With one input file and an `output` with an image suffix, `output` is the file to write. Otherwise it is a folder.
    Images of an input folder keep their paths below it, after the name of their folder if there are several inputs.
    Targets with the same name, also one that differs in case only, get the format of their image into the name, such as
    a_jpg.png and a_png.png; images of one format are numbered: a.png, a_2.png.

    Args:
        inputs: files and folders.
        output: a file or a folder.
        suffix: the format to write; None is that of `output`, or png.
        existing: what to do with targets that exist.
        samples: outputs for each image; the targets of several end in _s0, _s1 and so on.
        name_suffix: put at the end of the name of each file in a folder, before its format.
        models: names of several models; each has a folder in `output`, or its name at the end of the file's name.

    Raises:
        InputError: an input is missing or empty, an image would replace an input, or a target exists.
    """
    _check_output(inputs, output)
    is_file = is_output_file(output)
    jobs = _list_jobs(inputs, output, suffix, name_suffix)
    if samples > 1:
        jobs = [_number_job(job, sample) for job in jobs for sample in range(samples)]
    separated = _separate_targets(jobs)
    renamed = [new for new, job in zip(separated, jobs, strict=True) if new != job]
    jobs = separated
    if models:
        jobs = [
            replace(job, target=_place_model(job.target, name, output, is_file), model=number)
            for number, name in enumerate(models)
            for job in jobs
        ]
    _check_targets(jobs)
    _check_target_folders([source for source in inputs if source.is_dir()], output, jobs)
    present = [job for job in jobs if job.target.exists()]
    if present and existing == "refuse":
        more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        raise InputError(
            f"upscale: expected new files, got {present[0].target}, which exists{more}; "
            "add --overwrite to replace it or --skip-existing to keep it."
        )
    if existing == "skip":
        jobs = [job for job in jobs if not job.target.exists()]
        return UpscalePlan(jobs, len(present), renamed)
    return UpscalePlan(jobs, 0, renamed)


def is_output_file(output: Path) -> bool:
    """Return whether an output is a file to write, rather than a folder."""
    return output.suffix.lower() in OUTPUT_SUFFIXES and not output.is_dir()


def name_output(
    inputs: Sequence[Path], factor: float, suffix: OutputFormat | None = None, name_suffix: str = ""
) -> Path:
    """Return the output for one input where the user names none: next to it, with the factor in its name.

    `photo.jpg` becomes `photo_x2.png`, and the folder `scans` becomes `scans_x2`.

    Args:
        inputs: files and folders.
        factor: of the size.
        suffix: the format to write; None is png.
        name_suffix: ends the name of a file instead of the factor.

    Raises:
        InputError: there are several inputs.
    """
    if len(inputs) != 1:
        raise InputError(
            f"upscale: expected an output folder for {len(inputs)} inputs, got none; name one with --output."
        )
    (source,) = inputs
    if source.is_dir():
        source = Path(os.path.realpath(source))  # "." has no name
        return source.with_name(f"{source.name}_x{factor:g}")
    return _name_target(source, suffix, name_suffix or f"_x{factor:g}", source)


def _list_jobs(inputs: Sequence[Path], output: Path, suffix: OutputFormat | None, name_suffix: str) -> list[UpscaleJob]:
    """Return a job for each file, with the target that it has if no other one has the same."""
    is_file = is_output_file(output)
    if is_file and (len(inputs) != 1 or inputs[0].is_dir()):
        raise InputError(f"upscale: expected a folder for several images, got {output}; name a folder with -o.")
    jobs = []
    for source in inputs:
        if source.is_dir():
            target = output if len(inputs) == 1 else output / Path(os.path.realpath(source)).name
            paths = list_sources(source, output, "upscale", UPSCALED_FORMATS)
            jobs += [
                UpscaleJob(path, _name_target(target / path.relative_to(source), suffix, name_suffix, path))
                for path in paths
            ]
        elif not source.exists():
            raise missing_path_error(source, "an image or a folder of images")
        elif is_file:
            jobs.append(UpscaleJob(source, _check_kind(source, _check_suffix(output, suffix))))
        else:
            jobs.append(UpscaleJob(source, _name_target(output / source.name, suffix, name_suffix, source)))
    return [replace(job, kind=find_kind(job.source, job.target.suffix.lower())) for job in dict.fromkeys(jobs)]


def _number_job(job: UpscaleJob, sample: int) -> UpscaleJob:
    return replace(job, target=job.target.with_stem(f"{job.target.stem}_s{sample}"), sample=sample)


def _separate_targets(jobs: Sequence[UpscaleJob]) -> list[UpscaleJob]:
    """Give each job a target of its own."""
    counts = Counter(_key(job.target) for job in jobs)
    formats = Counter((_key(job.target), job.source.suffix.lower()) for job in jobs)
    taken = {key for key, count in counts.items() if count == 1}
    separated = []
    for job in jobs:
        key = _key(job.target)
        if counts[key] == 1:
            separated.append(job)
            continue
        name = job.source.suffix.lower().removeprefix(".")
        has_own_format = name and all(count == 1 for (other, _), count in formats.items() if other == key)
        stem = f"{job.target.stem}_{name}" if has_own_format else job.target.stem
        target, number = job.target.with_stem(stem), 1
        while _key(target) in taken:
            number += 1
            target = job.target.with_stem(f"{stem}_{number}")
        taken.add(_key(target))
        separated.append(replace(job, target=target))
    return separated


def _key(target: Path) -> str:
    """Return the same string for all names that are one file where case does not count."""
    return str(target).casefold()


def _place_model(target: Path, name: str, output: Path, is_file: bool) -> Path:
    return target.with_stem(f"{target.stem}_{name}") if is_file else output / name / target.relative_to(output)


def _check_output(inputs: Sequence[Path], output: Path) -> None:
    """Check that the name of a file in another format is not taken for the name of a folder."""
    suffix = output.suffix.lower()
    is_one_file = len(inputs) == 1 and not inputs[0].is_dir()
    is_file_name = is_image_name(output) or (is_one_file and suffix[1:].isalpha())
    if is_file_name and suffix not in OUTPUT_SUFFIXES and not output.is_dir():
        expected = CONTAINERS if is_one_file and inputs[0].suffix.lower() in VIDEO_SUFFIXES else SUFFIXES
        raise InputError(
            f"upscale: expected a file that ends in {', '.join(expected)}, or a folder, got {output}; "
            "choose one of these formats."
        )


def _check_target_folders(sources: Sequence[Path], output: Path, jobs: Sequence[UpscaleJob]) -> None:
    """Check that results do not go among the images of an input folder, where a later call would read them.

    A folder of results inside an input folder is left out when it is listed.
    """
    folders = dict.fromkeys(job.target.parent for job in jobs)
    for source in sources:
        if is_inside(output, source):
            continue
        for folder in folders:
            if is_inside(folder / "any", source):
                raise InputError(
                    f"upscale: expected an output folder other than the input, got {folder} for both; "
                    "choose another -o."
                )


def _name_target(path: Path, suffix: OutputFormat | None, name_suffix: str, source: Path) -> Path:
    """Return a target with the end of its name and the suffix of its format."""
    return path.with_name(f"{path.stem}{name_suffix}{choose_suffix(source, suffix)}")


def _check_kind(source: Path, output: Path) -> Path:
    """Return the output file, after a check that it can be what the input is: a video or an image."""
    is_video = source.suffix.lower() in VIDEO_SUFFIXES
    suffix = output.suffix.lower()
    if is_video != (suffix in CONTAINERS):
        kind, suffixes = ("a video", CONTAINERS) if is_video else ("an image", SUFFIXES)
        raise InputError(
            f"upscale: expected a file that ends in {', '.join(suffixes)} for {kind}, got {output}; choose one of them."
        )
    if not is_video and suffix not in SUFFIXES and find_kind(source, suffix) == "image":
        raise InputError(f"upscale: expected an animation for {output}, got one image in {source}; write a PNG.")
    return output


def _check_suffix(output: Path, suffix: OutputFormat | None) -> Path:
    """Return the output file, after a check that its suffix is that of the requested format."""
    same = {"jpeg": "jpg", "tif": "tiff", "apng": "png"}
    named = output.suffix.lower().removeprefix(".")
    if suffix not in (None, "keep") and same.get(named, named) != suffix:
        raise InputError(f"upscale: expected --format {named} for {output}, got {suffix}; leave --format out.")
    return output


def _check_targets(jobs: Sequence[UpscaleJob]) -> None:
    sources = {os.path.realpath(job.source) for job in jobs}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise InputError(f"upscale: expected a target that is not an input, got {job.target}; choose another -o.")
