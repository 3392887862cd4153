"""Plan and run the upscaling of many files; unreadable files, full disks and Ctrl-C do no damage."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, check_format, read_image, write_image
from selfsr.images.paths import SUFFIXES, is_image_name, is_inside, list_images, missing_path_error
from selfsr.upscaling.options import OutputFormat
from selfsr.upscaling.partial import remove_partial

ExistingFiles = Literal["refuse", "overwrite", "skip"]

# Encoding takes longer than upscaling on a GPU; more than two finished images are not worth their memory.
_WRITERS = 2


@dataclass(frozen=True)
class UpscaleJob:
    """One file to upscale.

    Attributes:
        source: the file to read.
        target: the file to write.
        sample: number of the sample, from 0 on, of a model that samples.
    """

    source: Path
    target: Path
    sample: int = 0


@dataclass
class UpscaleSummary:
    """The result of the jobs.

    Attributes:
        written: number of images that were written.
        failures: one sentence for each image that could not be upscaled.
        further_frames: number of frames and pages after the first ones, which are not upscaled.
    """

    written: int = 0
    failures: list[str] = field(default_factory=list)
    further_frames: int = 0


def plan_jobs(
    inputs: Sequence[Path],
    output: Path,
    suffix: OutputFormat | None = None,
    existing: ExistingFiles = "refuse",
    samples: int = 1,
) -> tuple[list[UpscaleJob], int]:
    """Choose the target of each image, before anything is read or written.

    With one input file and an `output` with an image suffix, `output` is the file to write. Otherwise it is a folder.
    Images of an input folder keep their paths below it, after the name of their folder if there are several inputs.

    Args:
        inputs: files and folders.
        output: a file or a folder.
        suffix: the format to write; None is that of `output`, or png.
        existing: what to do with targets that exist.
        samples: outputs for each image; the targets of several end in _s0, _s1 and so on.

    Returns:
        The jobs, and the number of images that are skipped because their target exists.

    Raises:
        InputError: an input is missing or empty, two images have the same target, an image would replace itself, or a
            target exists.
    """
    _check_output(inputs, output)
    is_file = output.suffix.lower() in SUFFIXES and not output.is_dir()
    if is_file and (len(inputs) != 1 or inputs[0].is_dir()):
        raise InputError(f"upscale: expected a folder for several images, got {output}; name a folder with -o.")
    jobs = []
    for source in inputs:
        if source.is_dir():
            target = output if len(inputs) == 1 else output / Path(os.path.realpath(source)).name
            paths = _list_sources(source, output)
            jobs += [UpscaleJob(path, _with_format(target / path.relative_to(source), suffix)) for path in paths]
        elif not source.exists():
            raise missing_path_error(source, "an image or a folder of images")
        elif is_file:
            jobs.append(UpscaleJob(source, _check_suffix(output, suffix)))
        else:
            jobs.append(UpscaleJob(source, _with_format(output / source.name, suffix)))
    if samples > 1:
        jobs = [_number_job(job, sample) for job in jobs for sample in range(samples)]
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
        return [job for job in jobs if job not in present], len(present)
    return jobs, 0


def name_output(inputs: Sequence[Path], scale: int, suffix: OutputFormat | None = None) -> Path:
    """Return the output for one input where the user names none: next to it, with the scale in its name.

    `photo.jpg` becomes `photo_x2.png`, and the folder `scans` becomes `scans_x2`.

    Args:
        inputs: files and folders.
        scale: the upscaling factor.
        suffix: the format to write; None is png.

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
        return source.with_name(f"{source.name}_x{scale}")
    return _with_format(source.with_name(f"{source.stem}_x{scale}{source.suffix}"), suffix)


def _number_job(job: UpscaleJob, sample: int) -> UpscaleJob:
    return UpscaleJob(job.source, job.target.with_stem(f"{job.target.stem}_s{sample}"), sample)


def _check_output(inputs: Sequence[Path], output: Path) -> None:
    """Check that the name of a file in another format is not taken for the name of a folder."""
    suffix = output.suffix.lower()
    is_one_file = len(inputs) == 1 and not inputs[0].is_dir()
    is_file_name = is_image_name(output) or (is_one_file and suffix[1:].isalpha())
    if is_file_name and suffix not in SUFFIXES and not output.is_dir():
        raise InputError(
            f"upscale: expected a file that ends in {', '.join(SUFFIXES)}, or a folder, got {output}; "
            "choose one of these formats."
        )


def _list_sources(source: Path, output: Path) -> list[Path]:
    """List the images of an input folder, without earlier results if the output folder is in it.

    Raises:
        InputError: there are no others.
    """
    paths = list_images(source)
    if not is_inside(output, source):
        return paths
    kept = [path for path in paths if not is_inside(path, output)]
    if not kept:
        raise InputError(
            f"upscale: expected images in {source}, got none outside of {output}; pass the folder of the originals."
        )
    return kept


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


class _Tally:
    """Counts the results of jobs and reports them.

    Args:
        advance: called after each image.
        on_failure: called with a sentence for each image that is skipped.
    """

    def __init__(self, advance: Callable[[], None], on_failure: Callable[[str], None]) -> None:
        self.summary = UpscaleSummary()
        self._advance, self._on_failure = advance, on_failure

    def add_failure(self, job: UpscaleJob, error: Exception) -> None:
        sentence = str(error) if str(job.source) in str(error) else f"{job.source}: {error}"
        self.summary.failures.append(sentence)
        self._on_failure(sentence)
        self._advance()

    def await_write(self, job: UpscaleJob, writing: Future[None]) -> None:
        try:
            writing.result()
        except InputError as error:
            self.add_failure(job, error)
        else:
            self.summary.written += 1
            self._advance()


def upscale_files(
    jobs: Sequence[UpscaleJob],
    run: Callable[[DecodedImage, UpscaleJob], DecodedImage],
    *,
    scale: int,
    advance: Callable[[], None],
    on_failure: Callable[[str], None],
) -> UpscaleSummary:
    """Upscale each file, while the next is read and the last ones are written.

    A file that cannot be read, upscaled or stored in its format is reported and skipped. A target that cannot be
    written ends the work, because the others could not be written either.

    Args:
        jobs: the files.
        run: upscales an image.
        scale: the upscaling factor.
        advance: called after each image.
        on_failure: called with a sentence for each image that is skipped.

    Raises:
        OSError: the disk is full, no permission, and so on; files that were written before are complete.
    """
    tally = _Tally(advance, on_failure)
    with ThreadPoolExecutor(_WRITERS) as writers, ThreadPoolExecutor(1) as reader:
        pending: deque[tuple[UpscaleJob, Future[None]]] = deque()
        try:
            for job, reading in _read_ahead(jobs, reader):
                try:
                    image = reading.result()
                except (InputError, OSError) as error:
                    tally.add_failure(job, error)
                    continue
                tally.summary.further_frames += image.frames - 1
                job.target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _check_format(job, image, scale)
                    upscaled = run(image, job)
                except InputError as error:
                    tally.add_failure(job, error)
                    continue
                while len(pending) >= _WRITERS:
                    tally.await_write(*pending.popleft())
                pending.append((job, writers.submit(_write, job.target, upscaled)))
            while pending:
                tally.await_write(*pending.popleft())
        finally:
            reader.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
    return tally.summary


def _write(target: Path, image: DecodedImage) -> None:
    """Write the result, and then remove what was saved of it while it was unfinished."""
    write_image(target, image)
    remove_partial(target)


def _read_ahead(
    jobs: Sequence[UpscaleJob], reader: ThreadPoolExecutor
) -> Iterator[tuple[UpscaleJob, Future[DecodedImage]]]:
    """Yield each job with its image, while the next one is read."""
    ahead: deque[tuple[UpscaleJob, Future[DecodedImage]]] = deque()
    for job in jobs:
        ahead.append((job, reader.submit(read_image, job.source)))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def _check_format(job: UpscaleJob, image: DecodedImage, scale: int) -> None:
    """Check that the target format can store the result, before the work."""
    check_format(
        job.target,
        height=image.height * scale,
        width=image.width * scale,
        bits=image.bits,
        alpha=image.alpha is not None,
    )


def _with_format(path: Path, suffix: OutputFormat | None) -> Path:
    """Return a target with the suffix of its format."""
    return path if suffix == "keep" else path.with_suffix(f".{suffix or 'png'}")


def _check_suffix(output: Path, suffix: OutputFormat | None) -> Path:
    """Return the output file, after a check that its suffix is that of the requested format."""
    same = {"jpeg": "jpg", "tif": "tiff"}
    named = output.suffix.lower().removeprefix(".")
    if suffix not in (None, "keep") and same.get(named, named) != suffix:
        raise InputError(f"upscale: expected --format {named} for {output}, got {suffix}; leave --format out.")
    return output


def _check_targets(jobs: Sequence[UpscaleJob]) -> None:
    sources = {os.path.realpath(job.source) for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if os.path.realpath(job.target) in sources:
            raise InputError(f"upscale: expected a target that is not an input, got {job.target}; choose another -o.")
        other = taken.setdefault(job.target, job.source)
        if other != job.source:
            raise InputError(
                f"upscale: expected a target for each image, got {job.target} for {other} and {job.source}; "
                "use --format keep, or upscale them one by one."
            )
