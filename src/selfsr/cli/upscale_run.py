"""Run the models of `selfsr upscale` with progress, and print what was done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from selfsr.cli.messages import print_left_out
from selfsr.cli.upscale_plan import PlannedFiles

if TYPE_CHECKING:
    from selfsr.images.files import DecodedImage
    from selfsr.upscaling.files import UpscaleSummary
    from selfsr.upscaling.kinds import JobKind
    from selfsr.upscaling.plan import UpscaleJob
    from selfsr.upscaling.sized import SizedUpscaler

    OnImageTile = Callable[[str, int, int], None]


def run_models(
    upscalers: Sequence["SizedUpscaler"], files: PlannedFiles, quality: int | None, *, is_json: bool
) -> None:
    """Upscale all files by each model, and print a summary.

    Args:
        upscalers: one for each model.
        files: the files.
        quality: of JPEG, WebP and videos.
        is_json: whether stdout is for JSON objects only.

    Raises:
        typer.Exit: a file could not be upscaled; with status 1.
        OSError: the disk is full, no permission, and so on.
    """
    from selfsr.upscaling.files import UpscaleSummary

    summary = UpscaleSummary()
    for number, sized in enumerate(upscalers):
        jobs = [job for job in files.plan.jobs if job.model == number and job.source not in summary.unreadable]
        _run_model(summary, sized, jobs, files.output, quality)
    _print_summary(summary, files, is_json=is_json)
    if summary.failures:
        raise typer.Exit(1)


def _run_model(
    summary: "UpscaleSummary", sized: "SizedUpscaler", jobs: Sequence["UpscaleJob"], output: Path, quality: int | None
) -> None:
    """Upscale all files by one model: the images, then the animations and videos."""
    from selfsr.console import print_line
    from selfsr.upscaling.files import upscale_files
    from selfsr.upscaling.moving import upscale_moving

    upscaler, size = sized.upscaler, sized.output_size
    scale = upscaler.model.scale
    print_line(
        f"{upscaler.model.architecture} x{scale} on {upscaler.device} in {upscaler.describe_precision()}; "
        f"output: {_describe_targets(jobs, output)}"
    )
    if size.factor != scale:
        print_line(f"The model upscales x{scale}; bicubic interpolation then resizes its output to x{size.factor:g}.")
    images = [job for job in jobs if job.kind == "image"]
    moving = [job for job in jobs if job.kind != "image"]
    on_failure: Callable[[str], None] = lambda sentence: print_line(f"selfsr: {sentence}")  # noqa: E731
    with _advice_on_interruption(len(jobs)):
        if images or not moving:
            with _progress(len(images)) as (advance, on_tile):
                run = partial(_upscale_image, sized, on_tile)
                summary.add(
                    upscale_files(
                        images, run, output_size=size, advance=advance, on_failure=on_failure, quality=quality
                    )
                )
        summary.add(
            upscale_moving(moving, sized, show_progress=_frame_progress, on_failure=on_failure, quality=quality)
        )


def _upscale_image(
    sized: "SizedUpscaler", on_tile: "OnImageTile", image: "DecodedImage", job: "UpscaleJob"
) -> "DecodedImage":
    return sized.upscale_file(image, job, partial(on_tile, job.source.name))


def _print_summary(summary: "UpscaleSummary", files: PlannedFiles, *, is_json: bool) -> None:
    """Print what was written, what was left out or renamed, and what failed."""
    from selfsr.console import print_event, print_line

    jobs, skipped = files.plan.jobs, files.plan.skipped
    total, kind = len(jobs), "images" if all(job.kind == "image" for job in jobs) else "files"
    note = f", {skipped} skipped because {'its output exists' if skipped == 1 else 'their outputs exist'}"
    place = f" to {_describe_targets(jobs, files.output)}" if summary.written or not total else ""
    print_event(
        "end", {"written": summary.written, "images": total, "skipped": skipped, "failed": total - summary.written}
    )
    if not is_json:
        kinds = _describe_kinds(summary.written_kinds) if kind == "files" else ""
        typer.echo(f"{summary.written} of {total} {kind} written{place}{kinds}{note if skipped else ''}.")
    renamed = files.plan.describe_renamed()
    print_left_out([*([renamed] if renamed else []), *files.left_out], summary.further_frames)
    if summary.failures:
        failed = total - summary.written
        print_line(f"selfsr: {failed} of {total} {kind} failed, for the reasons above: {summary.describe_failed()}.")


def _describe_kinds(kinds: Mapping["JobKind", int]) -> str:
    """Return how many files of each kind were written, such as " (3 images, 1 video)"."""
    names: tuple[JobKind, ...] = ("image", "animation", "video")
    counts = [f"{kinds[kind]:,} {kind}{'s' * (kinds[kind] > 1)}" for kind in names if kinds.get(kind)]
    return f" ({', '.join(counts)})" if counts else ""


def _describe_targets(jobs: Sequence["UpscaleJob"], output: Path) -> str:
    """Return the folder of the results, or the names of the files if they have other names than the output."""
    targets = [job.target for job in jobs]
    if not targets or output in targets or output in targets[0].parents:
        return str(output)
    return f"{targets[0]} to {targets[-1].name}" if len(targets) > 1 else str(targets[0])


@contextmanager
def _advice_on_interruption(files: int) -> Iterator[None]:
    """Print how to continue several files after Ctrl-C; for a large one, the upscaler prints it."""
    from selfsr.console import print_line

    try:
        yield
    except KeyboardInterrupt:
        if files > 1:
            print_line("Files that are finished stay; continue with the same command and --skip-existing.")
        raise


@contextmanager
def _progress(images: int) -> Iterator[tuple[Callable[[], None], Callable[[str, int, int], None]]]:
    """Show the progress in images, or in tiles if there is one image.

    Yields:
        A function to call after each image, and one to call after each tile with (name, tiles done, all tiles).
    """
    from selfsr.console import progress_bar

    with ExitStack() as stack:
        move_bar: Callable[..., None] | None = (
            stack.enter_context(progress_bar("Upscaling", images)) if images > 1 else None
        )
        shown = 0

        def advance() -> None:
            if images > 1 and move_bar is not None:
                move_bar()

        def on_tile(name: str, done: int, total: int) -> None:
            nonlocal move_bar, shown
            if images > 1 and move_bar is not None:
                move_bar(0, note=f"{name}: tile {done} of {total}" if total > 1 else name)
                return
            if move_bar is None:
                shown = done - 1  # not 0 where interrupted work continues
                move_bar = stack.enter_context(progress_bar(f"Upscaling {name}, tiles", total, shown))
            move_bar(done - shown)  # negative when smaller tiles start again
            shown = done

        yield advance, on_tile


@contextmanager
def _frame_progress(job: "UpscaleJob") -> Iterator[Callable[[int, int], None]]:
    """Show the progress in frames of an animation or a video; yield a function for (frames done, all frames)."""
    from selfsr.console import progress_bar

    with ExitStack() as stack:
        move_bar: Callable[..., None] | None = None
        shown = 0

        def on_frame(done: int, total: int) -> None:
            nonlocal move_bar, shown
            if move_bar is None:
                move_bar = stack.enter_context(progress_bar(f"Upscaling {job.source.name}, frames", total))
            move_bar(done - shown)
            shown = done

        yield on_frame
