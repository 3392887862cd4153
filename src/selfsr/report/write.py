"""The run report: one HTML page, made from run folders alone, that needs no network and no other file."""

from collections.abc import Sequence
from pathlib import Path

from selfsr.errors import InputError
from selfsr.fileio import write_whole
from selfsr.report.page import render
from selfsr.runfolder.read import read_runs


def write_report(runs: Sequence[Path], out: Path, *, against: Path | None = None) -> Path:
    """Write the report of one run, or of several laid over one another.

    Whatever a run folder lacks (it was killed, or has not come that far) is left out of the page and named there.
    The page is written whole or not at all.

    Args:
        runs: run folders.
        out: the HTML file to write; its folder is made if need be.
        against: a run folder, one of `runs` or one more that is shown like them; its outputs are the ones "without
            the loss" in the self-similarity graphs. Without it, another run whose recipe lacks that loss is taken.

    Returns:
        `out`.

    Raises:
        InputError: no run is given, or a folder is missing or is no run folder.
        OSError: the page cannot be written.
    """
    from selfsr.console import bar

    if not runs:
        raise InputError("report: expected at least one run folder, got none; name one that selfsr train made.")
    folders = list(dict.fromkeys(Path(run).resolve() for run in runs))
    index = None
    if against is not None:
        folder = Path(against).resolve()
        folders = list(dict.fromkeys([*folders, folder]))
        index = folders.index(folder)
    found = read_runs(folders)
    total = len({name for run in found for name in run.samples})
    if total:
        with bar("Drawing the report", total) as advance:
            page = render(found, index, advance)
    else:
        page = render(found, index, lambda **_: None)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page)
    return out
