"""Write the run report: one HTML page that works offline, made from run folders."""

import os
from collections.abc import Sequence
from pathlib import Path

from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.report.page import render_report
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
    _check_target(out)
    folders = list(dict.fromkeys(Path(os.path.realpath(run)) for run in runs))
    index = None
    if against is not None:
        folder = Path(os.path.realpath(against))
        folders = list(dict.fromkeys([*folders, folder]))
        index = folders.index(folder)
    run_folders = read_run_folders(folders)
    total = len({name for run in run_folders for name in run.samples})
    if total:
        with progress_bar("Rendering the report", total) as advance:
            page = render_report(run_folders, index, advance)
    else:
        page = render_report(run_folders, index, lambda **_: None)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page)
    return out


def _check_target(out: Path) -> None:
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
