"""Checkpoints: the complete state of a run, from which it resumes bit for bit."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from selfsr.console import print_line
from selfsr.errors import InputError, shorten
from selfsr.fileio import remove_temporaries, write_folder_atomic
from selfsr.nets.weights.find import STATE
from selfsr.recipe import Recipe, read_yaml
from selfsr.recipe.yaml12 import read_text
from selfsr.runfolder.read import flatten

# Increase it when the content of a checkpoint changes; `load_state` refuses other formats.
FORMAT = 3
# Options of a network that the state identifies by itself, so that they may change: the base, by its checksum.
_IDENTIFIED = frozenset(("network.base",))


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
    with write_folder_atomic(path) as temporary, (temporary / STATE).open("wb") as file:
        file.write(content.getbuffer())
    # A later checkpoint is one that could not be read when the run resumed; it must not push out a good one.
    for old in [other for other in list_checkpoints(folder) if other.name <= path.name][:-keep_last]:
        shutil.rmtree(old)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the folders of the complete checkpoints of a run, oldest first."""
    return sorted(path for path in (folder / "checkpoints").glob("step_*") if (path / STATE).exists())


def load_state(folder: Path, report: Callable[[str], None] = print_line) -> dict[str, Any]:
    """Return the newest checkpoint of the run in `folder` that can be read, on the CPU.

    Args:
        folder: the run folder.
        report: gets a sentence for each newer checkpoint that cannot be read.

    Raises:
        InputError: there is no checkpoint, none can be read, or it has another format.
    """
    paths = list_checkpoints(folder)
    if not paths:
        raise InputError(
            f"resume: expected a checkpoint in {folder / 'checkpoints'}, got none; start the run without --resume."
        )
    reasons = []
    for path in reversed(paths):
        try:
            state = _read_state(path / STATE)
        except _Unreadable as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            report(f"resume: {reason}; the run continues from {path.name}, the checkpoint before.")
        return state
    raise InputError(
        f"resume: {reasons[0]}, and {'no other one is there' if len(paths) == 1 else 'none before it can be read'}; "
        f"restore one from a copy, or delete {folder / 'checkpoints'} and start the run again without --resume."
    )


class _Unreadable(Exception):
    """A checkpoint is broken; the message is a sentence without an end."""


def _read_state(path: Path) -> dict[str, Any]:
    expected = f"expected a checkpoint in {path}, got"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # zip reader, unpickler and operating system have many kinds of errors for broken bytes
        reason = shorten(str(error).strip().partition("\n")[0].rstrip(".")) or type(error).__name__
        size = path.stat().st_size if path.exists() else 0
        raise _Unreadable(
            f"{expected} an empty file" if not size else f"{expected} a file that cannot be read ({reason})"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if isinstance(found, int) and found != FORMAT:
        raise InputError(
            f"resume: {path} must have checkpoint format {FORMAT}, got {found}; "
            "continue with the version of selfsr that wrote it."
        )
    if found is None or not isinstance(state.get("step"), int):
        raise _Unreadable(f"{expected} a file without the state of a run")
    return state


def check_same_network(recipe: Recipe, folder: Path) -> None:
    """Check that a recipe has the network, scale and channels with which the run in `folder` was started.

    Raises:
        InputError: they differ; the message names the options.
    """
    try:
        started = read_yaml(read_text(folder / "recipe.yaml"), "recipe")
    except (InputError, OSError):
        return  # the weights of the checkpoint decide
    if not isinstance(started, dict) or not isinstance(started.get("data"), dict):
        return
    document = recipe.model_dump(mode="json")
    then, now = (
        dict(
            flatten(
                {
                    "network": tree.get("network"),
                    "scale": tree.get("scale"),
                    "data": {"channels": tree["data"].get("channels")},
                }
            )
        )
        for tree in (started, document)
    )
    changes = [
        f"{key} ({then.get(key, 'absent')} then, {now.get(key, 'absent')} now)"
        for key in dict.fromkeys([*then, *now])
        if then.get(key) != now.get(key) and key not in _IDENTIFIED
    ]
    if changes:
        raise InputError(
            f"resume: expected the network with which the run in {folder} started, got another: "
            f"{shorten(', '.join(changes), 400)}; resume without this change, or start a new run with --set name=..."
        )
