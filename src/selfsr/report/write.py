"""Write the run report: one HTML page that works offline, made from run folders."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.report.page import collect_image_parts, render_report
from selfsr.runfolder.read import read_run_folders


def write_report(runs: Sequence[Path], out: Path, *, against: Path | None = None) -> Path:
    """Write the report of one run, or of several overlaid runs.

    The runs may be unfinished: the page lists missing files and shows the rest. A failure leaves an existing page
    unchanged.

    Args:
        runs: run folders.
        out: the HTML file to write; missing folders are created.
        against: a run folder for the column "without the loss" of the self-similarity graphs. It is added to `runs`
            if necessary. By default, this is a run whose recipe has no self-similarity loss.

    Returns:
        `out`.

    Raises:
        InputError: `runs` is empty, a folder is missing or is not a run folder, or `out` cannot be a file.
        OSError: the page cannot be written.
    """
    from selfsr.console import progress_bar

    if not runs:
        raise InputError("report: expected at least one run folder, got none; pass a folder made by selfsr train.")
    check_target(out)
    folders, index = resolve_folders(runs, against)
    run_folders = read_run_folders(folders)
    total = len({name for run in run_folders for name in run.samples})
    with progress_bar("Rendering the report", total) if total else nullcontext(_ignore) as advance:
        parts = collect_image_parts(run_folders, index, advance)
    page = render_report(run_folders, parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page)
    return out


def resolve_folders(runs: Sequence[Path], against: Path | None) -> tuple[list[Path], int | None]:
    """Return the real paths of the run folders without repetitions, with `against`, and the index of `against`."""
    folders = list(dict.fromkeys(Path(os.path.realpath(run)) for run in runs))
    if against is None:
        return folders, None
    folder = Path(os.path.realpath(against))
    folders = list(dict.fromkeys([*folders, folder]))
    return folders, folders.index(folder)


def _ignore(**_progress: object) -> None:
    pass


def check_target(out: Path) -> None:
    """Check, before the work, that the page can be a file at `out`."""
    if out.is_dir():
        raise InputError(
            f"report: expected an HTML file to write, got {out}, which is a folder; name a file, such as "
            f"{out / 'report.html'}."
        )
    for folder in out.parents:
        if folder.exists() and not folder.is_dir():
            raise InputError(
                f"report: expected an HTML file to write, got {out}, but {folder} is a file; choose another folder."
            )
