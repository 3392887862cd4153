"""Find a weights file: one of the package by its name, that of a run or of a checkpoint, or any by its path."""

import difflib
import os
from pathlib import Path

from selfsr.errors import InputError
from selfsr.nets.weights.folder import is_model_folder

# The file of a checkpoint.
STATE = "state.pt"
SHIPPED_FOLDER: Path = Path(__file__).resolve().parents[2] / "models" / "files"


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the file of a model: one of the package by its name, that of a folder, or what is at a path.

    A run folder stands for its best weights, and a checkpoint's folder (`checkpoints/step_00001000` of a run) for its
    state, of which a network opens with its averaged weights.

    The name of a shipped model comes first. A file of the same name in the current folder is written as a path, such as
    `./photo_x2`.

    Args:
        model: a name from `selfsr models list`, or a path. A `Path` cannot tell `./photo_x2` from `photo_x2`, so pass
            the text that the user wrote.

    Returns:
        The path of a weights file or a model folder. A path with a folder or a suffix is returned as it is, whether it
        exists or not.

    Raises:
        InputError: it is a single word, but neither a name nor a file, or a folder without weights of a run.
    """
    text = os.fspath(model)
    names = [path.stem for path in list_shipped_files()]
    if text in names:
        return SHIPPED_FOLDER / f"{text}.safetensors"
    path = Path(text)
    if path.is_dir():
        state = path / STATE
        return path if is_model_folder(path) else state if state.is_file() else find_run_weights(path)
    is_word = path.name == text and not path.suffix
    if is_word and not path.exists():
        near = difflib.get_close_matches(text, names, 1)
        advice = f"did you mean {near[0]}?" if near else "list the models with: selfsr models list"
        raise InputError(f"model: expected a weights file or {_join(names)}, got {text!r}; {advice}")
    return path


def is_folder_of_model(path: Path) -> bool:
    """Return whether a folder is that of a run, of a checkpoint or of a model on a pretrained base."""
    return (
        is_model_folder(path)
        or (path / STATE).is_file()
        or (path / "recipe.yaml").is_file()
        or (path / "weights").is_dir()
    )


def find_run_weights(run: Path) -> Path:
    """Return the weights of a run folder: the best, or the last if the run has not been evaluated.

    Raises:
        InputError: there are none.
    """
    for name in ("best", "last"):
        for suffix in (".safetensors", ".pth"):
            if (path := run / "weights" / f"{name}{suffix}").is_file():
                return path
    if not (run / "recipe.yaml").is_file():
        raise InputError(
            "model: expected a weights file, the name of a shipped model, a run folder, a checkpoint or a model "
            f"folder, got the folder {run}, which is none; name a file in it."
        )
    raise InputError(
        f"model: expected a run folder with weights, got {run}, which has no weights/best or weights/last; train until "
        "the first checkpoint."
    )


def list_shipped_files() -> list[Path]:
    """Return the weights files that come with the package, by name."""
    return sorted(SHIPPED_FOLDER.glob("*.safetensors"))


def _join(names: list[str]) -> str:
    return f"one of {', '.join(names)}" if names else "the name of a shipped model, of which there are none"
