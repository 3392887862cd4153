"""Checkpoints: everything a run needs to go on as if it had never stopped, written whole or not at all."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from selfsr.errors import InputError

# Raised when what a checkpoint holds changes; a run of another format is refused, not guessed at.
FORMAT = 2


def save_state(folder: Path, step: int, state: dict[str, Any], keep_last: int) -> Path:
    """Write `checkpoints/step_00000500/state.pt` under `folder`, then drop all but the newest `keep_last`.

    The checkpoint is written beside its place and renamed, so a killed run has either the old or the new one
    whole; the older ones go only once the new one stands.

    Args:
        folder: the run folder.
        step: the step that was finished.
        state: tensors and plain values only.
        keep_last: how many checkpoints stay.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    place = folder / "checkpoints" / f"step_{step:08d}"
    unfinished = place.with_name(place.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # By way of memory: on a full disk torch.save itself fails with a RuntimeError that does not say so.
    content = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, content)
    try:
        with (unfinished / "state.pt").open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(place, ignore_errors=True)
        os.replace(unfinished, place)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(place)
        raise
    for old in checkpoints(folder)[:-keep_last]:
        shutil.rmtree(old)
    return place


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    places = (folder / "checkpoints").glob("step_*")
    return sorted(p for p in places if p.suffix != ".tmp" and (p / "state.pt").exists())


def load_state(folder: Path) -> dict[str, Any]:
    """Return the newest checkpoint of the run in `folder`.

    Raises:
        InputError: there is none, or it was written by another format of the program.
    """
    places = checkpoints(folder)
    if not places:
        raise InputError(
            f"resume: expected a checkpoint in {folder / 'checkpoints'}, found none; start the run without --resume."
        )
    path = places[-1] / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"resume: {path} cannot be read ({str(error).splitlines()[0]}); "
            "delete its folder to go on from the one before."
        ) from error
    if state.get("format") != FORMAT:
        raise InputError(
            f"resume: {path} has checkpoint format {state.get('format')}, this version reads {FORMAT}; "
            "go on with the version that wrote it."
        )
    return state
