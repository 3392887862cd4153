"""The study folder: the resolved definition that all its runs follow, how far they are, and who works in it."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from selfsr import __version__
from selfsr.errors import InputError
from selfsr.fileio import write_whole
from selfsr.recipe import dump_recipe, parse_recipe, read_yaml
from selfsr.runfolder.checkpoints import checkpoints
from selfsr.study.differences import differences, told
from selfsr.study.plan import Plan, PlannedRun, Setup

# Raised when what a study folder holds changes; a folder of another format is refused, not guessed at.
FORMAT = 1
DEFINITION = "study.yaml"

_LOCK = ".lock"
_TAIL_BYTES = 2**20  # one line of scores of the largest sets is far smaller


def definition(plan: Plan) -> dict[str, Any]:
    """Return what `study.yaml` in the study folder holds: everything resolved, no file needed beside it."""
    return {
        "format": FORMAT,
        "selfsr": __version__,
        "name": plan.name,
        "baseline": plan.baseline,
        "score": plan.score,
        "unequal": list(plan.unequal),
        "seeds": list(plan.seeds),
        "changes": plan.changes,
        "notes": plan.notes,
        "history": list(plan.history),
        "recipes": {
            setup.name: {
                "judged_on": setup.judged_on,
                "arms": {arm: recipe.model_dump(mode="json") for arm, recipe in setup.arms.items()},
            }
            for setup in plan.setups.values()
        },
    }


def read_plan(folder: Path, *, any_version: bool = False) -> Plan:
    """Return the plan that the study in `folder` follows.

    Args:
        folder: a study folder.
        any_version: take the study of another version of the program, too: to read results, not to add runs.

    Raises:
        InputError: there is no study in it, or it is of another version.
    """
    document = _read(folder)
    _same_version(folder, document, any_version)
    setups = {}
    for name, entry in document["recipes"].items():
        arms = {
            arm: parse_recipe(recipe, f"{folder / DEFINITION}: {name}, {arm}") for arm, recipe in entry["arms"].items()
        }
        setups[name] = Setup(name, entry["judged_on"], arms)
    return Plan(
        document["name"],
        document["baseline"],
        document["score"],
        tuple(document["seeds"]),
        tuple(document["unequal"]),
        document["changes"],
        document["notes"],
        setups,
        tuple(document["history"]),
    )


def settle(plan: Plan, folder: Path, *, extend: bool = False, any_version: bool = False) -> Plan:
    """Make `folder` the study's, or check that it is; return the plan with the folder's history.

    Args:
        plan: the study.
        folder: the study folder; a new one is made.
        extend: go on where seeds, arms or recipes were added and nothing that was there has changed.
        any_version: see `read_plan`.

    Raises:
        InputError: the folder holds another study, or one of another version; the message names what differs.
    """
    plan, added = agree(plan, folder, extend=extend, any_version=any_version)
    if added:
        done = sum(is_finished(folder, run) for run in read_plan(folder).runs())
        note = f"Extended when {done} runs were finished: {'; '.join(added)}."
        plan = dataclasses.replace(plan, history=(*plan.history, note))
    if added or not (folder / DEFINITION).exists():
        _write(folder / DEFINITION, plan)
    return plan


def agree(plan: Plan, folder: Path, *, extend: bool = False, any_version: bool = False) -> tuple[Plan, list[str]]:
    """Check that `folder` is the study's, or can be made so; write nothing.

    Args:
        plan: the study.
        folder: the study folder, which need not exist.
        extend: see `settle`.
        any_version: see `read_plan`.

    Returns:
        The plan with the folder's history, and what it adds to the folder's definition, in words.

    Raises:
        InputError: see `settle`.
    """
    if not (folder / DEFINITION).exists():
        refuse_foreign(folder)
        return plan, []
    document = _read(folder)
    _same_version(folder, document, any_version)
    plan = dataclasses.replace(plan, history=tuple(document["history"]))
    changed, added = _compare(document, definition(plan))
    if changed or (added and not extend):
        ways = f"give the new one another folder with --out, or go on with the old one: selfsr study {folder}"
        if not changed:
            ways = f"--extend goes on with what was added, and the results will say so; or {ways}"
        raise InputError(
            f"study: {folder} holds a study of another definition, which differs in "
            f"{'; '.join([*changed, *added])}: {ways}"
        )
    return plan, added


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds something, but no study.

    Raises:
        InputError: it does.
    """
    if folder.is_dir() and not (folder / DEFINITION).exists() and any(e.name != _LOCK for e in folder.iterdir()):
        raise InputError(
            f"study: {folder} is not empty and holds no study ({DEFINITION} is missing); "
            "choose another folder with --out."
        )


def _write(path: Path, plan: Plan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, yaml.safe_dump(definition(plan), sort_keys=False))


def run_folder(folder: Path, run: PlannedRun) -> Path:
    """Return where a run of the study is."""
    return folder / "runs" / run.name


def step_reached(folder: Path, run: PlannedRun) -> int:
    """Return the step that a run would go on from; the last one of its recipe where it is finished.

    A finished run may have lost its checkpoints (they are large): its weights and its last evaluation are enough.
    """
    place = run_folder(folder, run)
    kept = checkpoints(place)
    if kept:
        return int(kept[-1].name.removeprefix("step_"))
    judged = last_step(place / "eval.jsonl") == run.recipe.steps
    return run.recipe.steps if judged and any(place.glob("weights/last.*")) else 0


def is_finished(folder: Path, run: PlannedRun) -> bool:
    """Return whether a run has taken every step of its recipe."""
    return step_reached(folder, run) == run.recipe.steps


def last_step(path: Path) -> int:
    """Return the step of the last whole line of a log, 0 where there is none. The log may be growing."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().splitlines(keepends=True)
    for line in reversed([line for line in lines if line.endswith(b"\n")]):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                return record["step"]
    return 0


def check_run(folder: Path, run: PlannedRun) -> None:
    """Check that what a run folder holds was trained as the study says.

    Raises:
        InputError: its recipe is another.
    """
    path = run_folder(folder, run) / "recipe.yaml"
    if not path.exists():
        return
    there = read_yaml(path.read_text(encoding="utf-8"), str(path))
    found = differences(there, yaml.safe_load(dump_recipe(run.recipe)))
    if found:
        raise InputError(
            f"study: {path.parent} was trained with another recipe than the study's: {told(found)}; "
            "move the folder away to train it anew."
        )


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[int | None]:
    """Keep other studies out of the folder; yield the lock's descriptor, which the runs inherit.

    The lock is held as long as any process has the descriptor open: a study that was killed leaves its runs behind,
    and a second one must not train them at the same time.

    Raises:
        InputError: another process works in the folder.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nobody is kept out
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"study: {folder} is in use: another selfsr study, or a run that a killed one left behind, works in "
                "it; wait for it or stop it."
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / DEFINITION
    if not path.is_file():
        raise InputError(f"study: {folder} is no study folder ({DEFINITION} is missing); name a study file.")
    document = read_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(document, dict) or "format" not in document:
        raise InputError(f"study: {path} is not what a study folder holds; give another folder with --out.")
    return document


def _same_version(folder: Path, document: dict[str, Any], any_version: bool) -> None:
    if document["format"] != FORMAT:
        raise InputError(
            f"study: {folder} has study format {document['format']}, this version reads {FORMAT}; "
            "go on with the version that wrote it, or give another folder with --out."
        )
    if document["selfsr"] != __version__ and not any_version:
        raise InputError(
            f"study: {folder} was begun with selfsr {document['selfsr']}, this is {__version__}, and runs of two "
            "versions are not compared; go on with that version, give another folder with --out, or read what is "
            "there with --summary."
        )


def _compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what was changed or taken away, and what was added, in words."""
    changed, added = [], []
    for key in ("name", "baseline", "score", "unequal"):
        if old[key] != new[key]:
            changed.append(f"{key} ({old[key]} there, {new[key]} here)")
    if old["seeds"] != new["seeds"]:
        grown = set(old["seeds"]) < set(new["seeds"])
        (added if grown else changed).append(f"seeds ({old['seeds']} there, {new['seeds']} here)")
    recipes = _keys("recipe", old["recipes"], new["recipes"], changed, added)
    settings: dict[str, tuple[Any, Any]] = {}
    for name in recipes:
        one, other = old["recipes"][name], new["recipes"][name]
        if one["judged_on"] != other["judged_on"]:
            changed.append(f"{name}: judged_on ({one['judged_on']} there, {other['judged_on']} here)")
        # Of several recipes, each new arm is told once.
        arms = _keys("arm", one["arms"], other["arms"], changed, added)
        for arm in arms:
            found = differences(one["arms"][arm], other["arms"][arm])
            settings |= {f"{name}: {path}": pair for path, pair in found.items()}
    if settings:
        changed.append(told(settings))
    return list(dict.fromkeys(changed)), list(dict.fromkeys(added))


def _keys(kind: str, old: dict[str, Any], new: dict[str, Any], changed: list[str], added: list[str]) -> list[str]:
    """Note which keys are gone and which are new; return those that stayed."""
    changed += [f"the {kind} {key} (missing here)" for key in old if key not in new]
    added += [f"the {kind} {key} (new here)" for key in new if key not in old]
    return [key for key in old if key in new]
