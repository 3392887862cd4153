"""Upscale many files; unreadable files, full disks and Ctrl-C do no damage."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from selfsr.errors import InputError
from selfsr.images.files import FLOAT_SUFFIXES, DecodedImage, check_format, read_image, write_image
from selfsr.upscaling.kinds import JobKind
from selfsr.upscaling.output_size import OutputSize
from selfsr.upscaling.partial import remove_partial
from selfsr.upscaling.plan import UpscaleJob
from selfsr.upscaling.sized import choose_bits

# Encoding takes longer than upscaling on a GPU; more than two finished images are not worth their memory.
_WRITERS = 2
# How many failed files the last sentence names.
_SHOWN = 5


@dataclass
class UpscaleSummary:
    """The result of the jobs.

    Attributes:
        written: number of files that were written.
        failures: one sentence for each image that could not be upscaled.
        failed: the files that could not be upscaled.
        unreadable: those of them that could not be read.
        further_frames: number of frames and pages after the first ones, which are not upscaled.
        written_kinds: number of written images, animations and videos.
    """

    written: int = 0
    failures: list[str] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    unreadable: set[Path] = field(default_factory=set)
    further_frames: int = 0
    written_kinds: Counter[JobKind] = field(default_factory=Counter)

    def add(self, other: "UpscaleSummary") -> None:
        """Add the results of further jobs."""
        self.written += other.written
        self.failures += other.failures
        self.failed += other.failed
        self.unreadable |= other.unreadable
        self.further_frames += other.further_frames
        self.written_kinds += other.written_kinds

    def describe_failed(self) -> str:
        """Return the names of the files that could not be upscaled; many are abbreviated."""
        names = [str(path) for path in dict.fromkeys(self.failed)]
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more


class Tally:
    """Counts the results of jobs and reports them.

    Args:
        advance: called after each image.
        on_failure: called with a sentence for each image that is skipped.
    """

    def __init__(self, advance: Callable[[], None], on_failure: Callable[[str], None]) -> None:
        self.summary = UpscaleSummary()
        self._advance, self._on_failure = advance, on_failure

    def add_success(self, job: UpscaleJob) -> None:
        """Count a file that was written."""
        self.summary.written += 1
        self.summary.written_kinds[job.kind] += 1
        self._advance()

    def add_failure(self, job: UpscaleJob, error: Exception) -> None:
        """Count and report a file that could not be upscaled."""
        sentence = str(error) if str(job.source) in str(error) else f"{job.source}: {error}"
        self.summary.failures.append(sentence)
        self.summary.failed.append(job.source)
        self._on_failure(sentence)
        self._advance()

    def await_write(self, job: UpscaleJob, writing: Future[None]) -> None:
        """Count a file once it is written."""
        try:
            writing.result()
        except InputError as error:
            self.add_failure(job, error)
        else:
            self.add_success(job)


def upscale_files(
    jobs: Sequence[UpscaleJob],
    run: Callable[[DecodedImage, UpscaleJob], DecodedImage],
    *,
    output_size: OutputSize,
    advance: Callable[[], None],
    on_failure: Callable[[str], None],
    quality: int | None = None,
) -> UpscaleSummary:
    """Upscale the image of each file, while the next is read and the last ones are written.

    A file that cannot be read, upscaled or stored in its format is reported and skipped. A target that cannot be
    written ends the work, because the others could not be written either.

    Args:
        jobs: the files.
        run: upscales an image.
        output_size: of each image.
        advance: called after each image.
        on_failure: called with a sentence for each image that is skipped.
        quality: of JPEG and WebP, as in `write_image`.

    Raises:
        OSError: the disk is full, no permission, and so on; files that were written before are complete.
    """
    tally = Tally(advance, on_failure)
    with ThreadPoolExecutor(_WRITERS) as writers, ThreadPoolExecutor(1) as reader:
        pending: deque[tuple[UpscaleJob, Future[None]]] = deque()
        try:
            for job, reading in _read_ahead(jobs, reader):
                try:
                    image = reading.result()
                except (InputError, OSError) as error:
                    tally.summary.unreadable.add(job.source)
                    tally.add_failure(job, error)
                    continue
                tally.summary.further_frames += image.frames - 1
                job.target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _check_format(job, image, output_size)
                    upscaled = run(image, job)
                except InputError as error:
                    tally.add_failure(job, error)
                    continue
                while len(pending) >= _WRITERS:
                    tally.await_write(*pending.popleft())
                pending.append((job, writers.submit(_write, job.target, upscaled, quality)))
            while pending:
                tally.await_write(*pending.popleft())
        finally:
            reader.shutdown(cancel_futures=True)
            writers.shutdown(cancel_futures=True)
    return tally.summary


def _write(target: Path, image: DecodedImage, quality: int | None) -> None:
    """Write the result, and then remove what was saved of it while it was unfinished."""
    write_image(target, image, quality=quality)
    remove_partial(target)


def _read_ahead(
    jobs: Sequence[UpscaleJob], reader: ThreadPoolExecutor
) -> Iterator[tuple[UpscaleJob, Future[DecodedImage]]]:
    """Yield each job with its image, while the next one is read."""
    ahead: deque[tuple[UpscaleJob, Future[DecodedImage]]] = deque()
    for job in jobs:
        ahead.append((job, reader.submit(partial(read_image, for_upscaling=True), job.source)))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def _check_format(job: UpscaleJob, image: DecodedImage, output_size: OutputSize) -> None:
    """Check that the target format can store the result, before the work."""
    height, width = output_size.compute(image.height, image.width)
    is_float = image.float_format is not None and job.target.suffix.lower() in FLOAT_SUFFIXES
    check_format(
        job.target,
        height=height,
        width=width,
        bits=choose_bits(job.target, image),
        alpha=image.alpha is not None,
        is_float=is_float,
    )
