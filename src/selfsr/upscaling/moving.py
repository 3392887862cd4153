"""Upscale animations and videos, frame by frame."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import numpy as np

from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.images.animation import AnimationReader, encode_animation
from selfsr.images.files import check_format
from selfsr.images.large import new_array
from selfsr.images.paths import SUFFIXES
from selfsr.upscaling.files import Tally, UpscaleSummary
from selfsr.upscaling.plan import UpscaleJob
from selfsr.upscaling.sized import SizedUpscaler
from selfsr.upscaling.video.run import upscale_video

OnFrame = Callable[[int, int], None]


def upscale_moving(
    jobs: Sequence[UpscaleJob],
    sized: SizedUpscaler,
    *,
    show_progress: Callable[[UpscaleJob], AbstractContextManager[OnFrame]],
    on_failure: Callable[[str], None],
    quality: int | None = None,
) -> UpscaleSummary:
    """Upscale each animation and video; a file that cannot be upscaled is reported and skipped.

    Args:
        jobs: the files.
        sized: the model.
        show_progress: returns a context that yields a function, called with the finished frames and all of them.
        on_failure: called with a sentence for each file that is skipped.
        quality: of WebP and videos, 1 to 100.

    Raises:
        OSError: the disk is full, no permission, and so on; files that were written before are complete.
    """
    tally = Tally(lambda: None, on_failure)
    for job in jobs:
        work = upscale_animation if job.kind == "animation" else _upscale_video
        try:
            with show_progress(job) as on_frame:
                work(job, sized, quality, on_frame)
        except InputError as error:
            tally.summary.unreadable.add(job.source)
            tally.add_failure(job, error)
        else:
            tally.add_success(job)
    return tally.summary


def upscale_animation(job: UpscaleJob, sized: SizedUpscaler, quality: int | None, on_frame: OnFrame) -> None:
    """Upscale all frames of a GIF, an animated PNG or an animated WebP; durations and repetitions stay.

    Args:
        job: the file.
        sized: the model.
        quality: of WebP, 1 to 100; None is without loss.
        on_frame: called with the finished frames and all of them.

    Raises:
        InputError: the file is damaged, or the target cannot hold its size.
        OSError: the target cannot be written.
    """
    reader = AnimationReader(job.source)
    height, width = sized.output_size.compute(reader.height, reader.width)
    if job.target.suffix.lower() in SUFFIXES:
        check_format(job.target, height=height, width=width, bits=8, alpha=True)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    frames = new_array((reader.frames, height, width, 4), np.dtype(np.uint8), job.target.parent)
    for index, frame in enumerate(reader.read_frames()):
        upscaled = sized.upscale_frame(frame, (height, width), job)
        frames[index, :, :, :3] = upscaled.pixels
        frames[index, :, :, 3] = 255 if upscaled.alpha is None else upscaled.alpha
        on_frame(index + 1, reader.frames)
    suffix = job.target.suffix.lower()
    write_atomic(job.target, encode_animation(suffix, frames, reader.timing, icc=reader.icc, quality=quality))


def _upscale_video(job: UpscaleJob, sized: SizedUpscaler, quality: int | None, on_frame: OnFrame) -> None:
    upscale_video(
        job.source,
        job.target,
        partial(sized.upscale_frame, job=job),
        sized.output_size.compute,
        quality=quality,
        on_frame=on_frame,
        notify=sized.notify,
    )
