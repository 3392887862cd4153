"""Checkpoints: the complete state of a run, from which it resumes bit for bit."""

import io
import shutil
from pathlib import Path
from typing import Any

import torch

from selfsr.errors import InputError
from selfsr.fileio import remove_temporaries, write_folder_atomic

# Increase it when the content of a checkpoint changes; `load_state` refuses other formats.
FORMAT = 3


def save_state(folder: Path, step: int, state: dict[str, Any], keep_last: int) -> Path:
    """Write `checkpoints/step_00000500/state.pt` under `folder`, then delete all but the newest `keep_last`.

    The write is atomic, and older checkpoints are deleted only after it: a killed run always has a complete one.

    Args:
        folder: the run folder.
        step: the last finished step.
        state: tensors and plain values only.
        keep_last: number of checkpoints to keep.

    Returns:
        The folder of the new checkpoint.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    path = folder / "checkpoints" / f"step_{step:08d}"
    remove_temporaries(path.parent)
    # Serialize in memory: on a full disk, torch.save itself fails with a RuntimeError that does not say so.
    content = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, content)
    with write_folder_atomic(path) as temporary, (temporary / "state.pt").open("wb") as file:
        file.write(content.getbuffer())
    for old in list_checkpoints(folder)[:-keep_last]:
        shutil.rmtree(old)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the folders of the complete checkpoints of a run, oldest first."""
    return sorted(path for path in (folder / "checkpoints").glob("step_*") if (path / "state.pt").exists())


def load_state(folder: Path) -> dict[str, Any]:
    """Return the newest checkpoint of the run in `folder`, on the CPU.

    Raises:
        InputError: there is no checkpoint, it cannot be read, or it has another format.
    """
    paths = list_checkpoints(folder)
    if not paths:
        raise InputError(
            f"resume: expected a checkpoint in {folder / 'checkpoints'}, got none; start the run without --resume."
        )
    path = paths[-1] / "state.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"resume: expected a checkpoint in {path}, got a file that cannot be read "
            f"({str(error).splitlines()[0]}); delete its folder to continue from the previous checkpoint."
        ) from error
    if state.get("format") != FORMAT:
        raise InputError(
            f"resume: {path} must have checkpoint format {FORMAT}, got {state.get('format')}; "
            "continue with the version of selfsr that wrote it."
        )
    return state
