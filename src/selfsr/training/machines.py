"""Check before a run that its machines agree: on the recipe, on the files, and on who has the newest checkpoint."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from selfsr.data.datasets import Dataset
from selfsr.data.sources import MixedDataset
from selfsr.errors import InputError
from selfsr.machine.distributed import is_first_on_machine, process_count, share_with_all
from selfsr.recipe import Recipe
from selfsr.recipe.private import dump_public_recipe
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.training.data_record import describe_change, describe_data, describe_files


def check_same_recipe(recipe: Recipe) -> None:
    """Check that all processes have the recipe of the first one; folders may differ from machine to machine.

    Raises:
        InputError: a recipe differs.
    """
    if process_count() == 1:
        return
    texts = share_with_all(lambda: dump_public_recipe(recipe).splitlines())
    for rank, lines in enumerate(texts):
        for expected, line in zip_longest(texts[0], lines, fillvalue="nothing"):
            if line != expected:
                raise InputError(
                    f"train: expected {expected.strip()!r} of the recipe of process 0 in every process, got "
                    f"{line.strip()!r} in process {rank}; start the same recipe with the same options on each machine."
                )


def agree_on_resume(folder: Path, resume: bool | Literal["auto"]) -> bool:
    """Return whether the run resumes: "auto" does if the first process finds a checkpoint.

    The first process reads the checkpoint. Which machine it is on, torchrun decides by the machines' names, so it may
    be another one than before.

    Args:
        folder: the run folder, which only the machine of the first process needs.
        resume: as in `fit`.

    Raises:
        InputError: a newer checkpoint lies on the machine of another process.
    """
    if not resume:
        return False
    newest = share_with_all(lambda: next((path.name for path in reversed(list_checkpoints(folder))), ""))
    rank = newest.index(max(newest))
    if rank > 0:
        raise InputError(
            f"resume: expected the newest checkpoint of {folder} on the machine of process 0, got "
            f"{newest[0] or 'none'} there and {newest[rank]} on that of process {rank}; copy the run folder to "
            "the machine of process 0."
        )
    return resume is True or newest[0] != ""


def check_same_files(datasets: Sequence[Dataset | MixedDataset], set_files: Mapping[str, Sequence[Path]]) -> None:
    """Check that all machines of a run have the files of the first one, by names and sizes.

    Each process reads its own share of each batch and of each evaluation set, so the files must be equal. All processes
    must call this in the same order; the first one of each machine looks at the files.

    Args:
        datasets: the datasets of the run, one for each scale.
        set_files: the files of the evaluation sets, by the key of the recipe.

    Raises:
        InputError: the files of a machine differ.
    """
    if process_count() == 1:
        return

    def describe() -> dict[str, Any] | None:
        if not is_first_on_machine():
            return None
        data = {f"data.{key}": record for key, record in describe_data(datasets).items()}
        return {**data, **{key: describe_files(paths) for key, paths in set_files.items()}}

    records = {rank: record for rank, record in enumerate(share_with_all(describe)) if record is not None}
    first = next(iter(records.values()), {})
    for rank, record in records.items():
        for key in sorted({*first, *record}):
            if record.get(key) != first.get(key):
                raise InputError(
                    f"{key}: expected the same files on every machine, got "
                    f"{describe_change(first.get(key), record.get(key))} on the machine of process {rank}; copy the "
                    "files of the first machine to it."
                )
