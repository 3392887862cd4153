"""Messages that several commands print."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfsr.images.formats import ImageFormat


def describe_left_out(paths: Iterable[Path], formats: "tuple[ImageFormat, ...] | None" = None) -> list[str]:
    """Return a sentence for each folder with files that are not read; call it before files are written.

    Args:
        paths: folders and files.
        formats: the formats that are read; None is those of images of 8 and 16 bits.
    """
    from selfsr.images.formats import FORMATS
    from selfsr.images.paths import list_folder

    folders = [path for path in dict.fromkeys(paths) if path.is_dir()]
    sentences = ((folder, list_folder(folder, formats or FORMATS).describe_left_out()) for folder in folders)
    return [f"{folder}: {sentence}" for folder, sentence in sentences if sentence]


def print_left_out(sentences: Iterable[str], further_frames: int = 0) -> None:
    """Print the files of other kinds and the further frames and pages, which were not read."""
    from selfsr.console import print_line

    for sentence in sentences:
        print_line(f"Note: {sentence}")
    if further_frames:
        print_line(
            f"Note: {further_frames:,} further frame{'s' if further_frames > 1 else ''} or page"
            f"{'s' if further_frames > 1 else ''} left out; only the first of each file is read."
        )


def print_last_weights(model: str, path: Path) -> None:
    """Print a note if a run folder has no best weights, so that its last ones are used.

    Args:
        model: the model as the user wrote it.
        path: the file that was found for it.
    """
    from selfsr.console import print_line

    folder = Path(model)
    if path.parent == folder / "weights" and path.stem == "last":
        print_line(f"Note: {folder} has no weights/best; using weights/{path.name}.")


@contextlib.contextmanager
def explain_stopped_dry_run() -> Iterator[None]:
    """Print a line if Ctrl-C stops a dry run, and exit with status 130."""
    import typer

    from selfsr.console import print_line

    try:
        yield
    except KeyboardInterrupt:
        print_line("Stopped the dry run; nothing was written.")
        raise typer.Exit(130) from None
