"""Upscale files: what goes where, and how a long job survives a bad file, a full disk and Ctrl-C."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from selfsr.errors import InputError
from selfsr.images.files import Picture, check_format, read_picture
from selfsr.images.large import write_any_picture
from selfsr.images.paths import SUFFIXES, list_pictures, missing

Format = Literal["png", "jpg", "webp", "tiff", "keep"]
Existing = Literal["refuse", "overwrite", "skip"]

# Encoding takes longer than upscaling on a GPU; more than two finished pictures are not worth their memory.
_WRITERS = 2


@dataclass(frozen=True)
class Job:
    """One file to upscale.

    Attributes:
        source: the file to read.
        target: the file to write.
    """

    source: Path
    target: Path


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        written: how many pictures were written.
        failures: a sentence for each picture that could not be upscaled.
    """

    written: int = 0
    failures: list[str] = field(default_factory=list)


def plan_jobs(
    inputs: Sequence[Path], output: Path, suffix: Format | None = None, existing: Existing = "refuse"
) -> tuple[list[Job], int]:
    """Decide where each picture goes, before anything is read or written.

    One file and an `output` with a picture's suffix: that file. Otherwise `output` is a folder; the pictures of an
    input folder keep their place below it, and with several inputs also their folder's own name.

    Args:
        inputs: files and folders.
        output: a file or a folder.
        suffix: the format to write; None is that of `output`, or png.
        existing: what to do about a target that is already there.

    Returns:
        The jobs, and how many were left out because their target is there.

    Raises:
        InputError: an input is missing or empty, two pictures have one target, a picture would replace itself, or a
            target is there already.
    """
    is_file = output.suffix.lower() in SUFFIXES and not output.is_dir()
    if is_file and (len(inputs) != 1 or inputs[0].is_dir()):
        raise InputError(f"upscale: {output} is the name of one picture, but there are several; name a folder with -o.")
    jobs = []
    for given in inputs:
        if given.is_dir():
            place = output if len(inputs) == 1 else output / given.resolve().name
            inside = output.resolve()
            found = [p for p in list_pictures(given) if inside == given.resolve() or inside not in p.resolve().parents]
            jobs += [Job(path, _named(place / path.relative_to(given), suffix)) for path in found]
        elif not given.exists():
            raise missing(given, "a picture or a folder of pictures")
        elif is_file:
            jobs.append(Job(given, _checked_suffix(output, suffix)))
        else:
            jobs.append(Job(given, _named(output / given.name, suffix)))
    _check_targets(jobs)
    present = [job for job in jobs if job.target.exists()]
    if present and existing == "refuse":
        more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        raise InputError(
            f"upscale: {present[0].target} is already there{more}; "
            "add --overwrite to replace it or --skip-existing to leave it."
        )
    if existing == "skip":
        return [job for job in jobs if job not in present], len(present)
    return jobs, 0


def upscale_files(
    jobs: Sequence[Job],
    run: Callable[[Picture, Job], Picture],
    *,
    scale: int,
    advance: Callable[[], None],
    on_failure: Callable[[str], None],
) -> Outcome:
    """Upscale each file; read the next and write the last ones meanwhile.

    A file that cannot be read, upscaled or held by its format is told and left out. A target that cannot be written
    ends the job, because the others could not be written, either.

    Args:
        jobs: what to do.
        run: upscales a picture.
        scale: by how much.
        advance: called after each picture.
        on_failure: called with a sentence for each picture that is left out.

    Raises:
        OSError: the disk is full, no permission, and so on; what was written before is whole.
    """
    outcome = Outcome()

    def failed(job: Job, error: Exception) -> None:
        sentence = str(error) if str(job.source) in str(error) else f"{job.source}: {error}"
        outcome.failures.append(sentence)
        on_failure(sentence)
        advance()

    def finish(job: Job, writing: Future[None]) -> None:
        try:
            writing.result()
        except InputError as error:
            failed(job, error)
        else:
            outcome.written += 1
            advance()

    with ThreadPoolExecutor(_WRITERS) as writers, ThreadPoolExecutor(1) as reader:
        pending: deque[tuple[Job, Future[None]]] = deque()
        try:
            for job, reading in _read_ahead(jobs, reader):
                try:
                    picture = reading.result()
                except (InputError, OSError) as error:
                    failed(job, error)
                    continue
                job.target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _check_format(job, picture, scale)
                    upscaled = run(picture, job)
                except InputError as error:
                    failed(job, error)
                    continue
                while len(pending) >= _WRITERS:
                    finish(*pending.popleft())
                pending.append((job, writers.submit(write_any_picture, job.target, upscaled)))
            while pending:
                finish(*pending.popleft())
        finally:
            reader.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
    return outcome


def _read_ahead(jobs: Sequence[Job], reader: ThreadPoolExecutor) -> Iterator[tuple[Job, Future[Picture]]]:
    """Yield each job with its picture while the next one is being read."""
    ahead: deque[tuple[Job, Future[Picture]]] = deque()
    for job in jobs:
        ahead.append((job, reader.submit(read_picture, job.source)))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def _check_format(job: Job, picture: Picture, scale: int) -> None:
    """Check that the target can hold the result, before it is made."""
    check_format(
        job.target,
        height=picture.height * scale,
        width=picture.width * scale,
        bits=picture.bits,
        alpha=picture.alpha is not None,
    )


def _named(path: Path, suffix: Format | None) -> Path:
    """Give a target the suffix of its format."""
    return path if suffix == "keep" else path.with_suffix(f".{suffix or 'png'}")


def _checked_suffix(output: Path, suffix: Format | None) -> Path:
    """Check that the format that was asked for is the one that the file's name says."""
    same = {"jpeg": "jpg", "tif": "tiff"}
    named = output.suffix.lower().removeprefix(".")
    if suffix not in (None, "keep") and same.get(named, named) != suffix:
        raise InputError(f"upscale: {output} says {named}, --format says {suffix}; leave one of them out.")
    return output


def _check_targets(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target.resolve() in sources:
            raise InputError(
                f"upscale: {job.target} would replace a picture that is to be upscaled; choose another -o."
            )
        other = taken.setdefault(job.target, job.source)
        if other != job.source:
            raise InputError(
                f"upscale: {other} and {job.source} would both become {job.target}; use --format keep, "
                "or upscale them one by one."
            )
