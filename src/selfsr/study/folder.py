"""The study folder: its definition file, the progress of its runs, and its lock."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from selfsr import __version__
from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.recipe import dump_recipe, parse_recipe, read_yaml
from selfsr.recipe.yaml12 import read_text, write_yaml
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.runfolder.lock import LOCK_NAME, lock_folder
from selfsr.study.differences import describe_differences, find_differences
from selfsr.study.plan import PlannedRun, StudyPlan, StudySetup

# The number grows when the contents of a study folder change. Folders of other formats are refused.
FORMAT = 3
DEFINITION = "study.yaml"

_TAIL_BYTES = 2**20  # far more than one line of scores


def to_document(plan: StudyPlan) -> dict[str, Any]:
    """Return the contents of `study.yaml` in a study folder: the resolved study, which needs no other file."""
    return {
        "format": FORMAT,
        "selfsr": __version__,
        "name": plan.name,
        "baseline": plan.baseline,
        "metric": plan.metric,
        "equal_score": plan.equal_score,
        "allowed_differences": list(plan.allowed_differences),
        "seeds": list(plan.seeds),
        "changes": plan.changes,
        "notes": plan.notes,
        "history": list(plan.history),
        "recipes": {
            setup.name: {
                "evaluation_set": setup.evaluation_set,
                "arms": {arm: recipe.model_dump(mode="json") for arm, recipe in setup.arms.items()},
            }
            for setup in plan.setups.values()
        },
    }


def read_plan(folder: Path, *, any_version: bool = False) -> StudyPlan:
    """Read the plan of the study in `folder`.

    Args:
        folder: a study folder.
        any_version: also accept a study of another selfsr version. This is for reading results, not for more runs.

    Raises:
        InputError: the folder has no study, or a study of another version.
    """
    document = _read(folder)
    _check_version(folder, document, any_version)
    setups = {}
    for name, entry in document["recipes"].items():
        arms = {
            arm: parse_recipe(recipe, f"{folder / DEFINITION}: {name}, {arm}") for arm, recipe in entry["arms"].items()
        }
        setups[name] = StudySetup(name, entry["evaluation_set"], arms)
    return StudyPlan(
        document["name"],
        document["baseline"],
        document["metric"],
        tuple(document["seeds"]),
        tuple(document["allowed_differences"]),
        document["changes"],
        document["notes"],
        setups,
        tuple(document["history"]),
        document.get("equal_score"),
    )


def write_definition(plan: StudyPlan, folder: Path, *, extend: bool = False, any_version: bool = False) -> StudyPlan:
    """Write the study's definition into `folder`, or check that the existing one is the same.

    Args:
        plan: the study.
        folder: the study folder, which is created if it does not exist.
        extend: accept additional seeds, arms or recipes, if nothing else differs.
        any_version: see `read_plan`.

    Returns:
        The plan with the folder's history.

    Raises:
        InputError: the folder has another study, or one of another version. The message names the differences.
    """
    plan, added = match_folder(plan, folder, extend=extend, any_version=any_version)
    if added:
        done = sum(is_finished(folder, run) for run in read_plan(folder).runs())
        note = f"Extended when {done} runs were finished: {'; '.join(added)}."
        plan = dataclasses.replace(plan, history=(*plan.history, note))
    if added or not (folder / DEFINITION).exists():
        _write(folder / DEFINITION, plan)
    return plan


def match_folder(
    plan: StudyPlan, folder: Path, *, extend: bool = False, any_version: bool = False
) -> tuple[StudyPlan, list[str]]:
    """Check that `folder` has this study or is free for it; write nothing.

    Args:
        plan: the study.
        folder: the study folder, which may not exist yet.
        extend: see `write_definition`.
        any_version: see `read_plan`.

    Returns:
        The plan with the folder's history, and its additions to the folder's definition, in words.

    Raises:
        InputError: see `write_definition`.
    """
    if not (folder / DEFINITION).exists():
        check_folder(folder)
        return plan, []
    document = _read(folder)
    _check_version(folder, document, any_version)
    plan = dataclasses.replace(plan, history=tuple(document["history"]))
    changed, added = _compare(document, to_document(plan))
    if changed or (added and not extend):
        advice = f"choose another folder with --out, or continue the old study: selfsr study {folder}"
        if not changed:
            advice = f"add --extend to include the additions, which the results will mention; or {advice}"
        raise InputError(
            f"study: {folder} has another study; the differences are {'; '.join([*changed, *added])}: {advice}"
        )
    return plan, added


def check_folder(folder: Path) -> None:
    """Check that a folder is empty or has a study.

    Raises:
        InputError: the folder has other files.
    """
    if folder.is_dir() and not (folder / DEFINITION).exists() and any(e.name != LOCK_NAME for e in folder.iterdir()):
        raise InputError(
            f"study: {folder} is not empty and has no study ({DEFINITION} is missing); "
            "choose another folder with --out."
        )


def _write(path: Path, plan: StudyPlan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, write_yaml(to_document(plan)))


def get_run_folder(folder: Path, run: PlannedRun) -> Path:
    """Return the run folder of a run."""
    return folder / "runs" / run.name


def read_step(folder: Path, run: PlannedRun) -> int:
    """Return the step from which a run would resume; its last step if it is finished.

    A finished run needs no checkpoints, which are large: its weights and its last evaluation are enough.
    """
    path = get_run_folder(folder, run)
    saved = list_checkpoints(path)
    if saved:
        return int(saved[-1].name.removeprefix("step_"))
    evaluated = read_last_step(path / "eval.jsonl") == run.recipe.steps
    return run.recipe.steps if evaluated and any(path.glob("weights/last.*")) else 0


def is_finished(folder: Path, run: PlannedRun) -> bool:
    """Return whether a run has reached the last step of its recipe."""
    return read_step(folder, run) == run.recipe.steps


def read_last_step(path: Path) -> int:
    """Return the step of the last complete line of a log, which may be growing; 0 without a line."""
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
    """Check that a run folder was trained with the study's recipe.

    Raises:
        InputError: its recipe differs.
    """
    path = get_run_folder(folder, run) / "recipe.yaml"
    if not path.exists():
        return
    trained = read_yaml(read_text(path), str(path))
    differences = find_differences(trained, read_yaml(dump_recipe(run.recipe), str(path)))
    if differences:
        raise InputError(
            f"study: {path.parent} was trained with another recipe than the study's: "
            f"{describe_differences(differences)}; move the folder away to train the run again."
        )


def lock_study(folder: Path) -> contextlib.AbstractContextManager[int | None]:
    """Lock the folder against other studies; the context is the lock's file descriptor, which the runs inherit.

    When a study is killed, its runs keep the lock, so that a second study cannot train the same runs at the same time.

    Raises:
        InputError: another process uses the folder.
    """
    return lock_folder(folder, "study", "another selfsr study, or by a run of a killed one")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / DEFINITION
    if not path.is_file():
        raise InputError(f"study: {folder} is not a study folder ({DEFINITION} is missing); pass a study file.")
    document = read_yaml(read_text(path), str(path))
    if not isinstance(document, dict) or "format" not in document:
        raise InputError(f"study: {path} is not the definition of a study folder; choose another folder with --out.")
    return document


def _check_version(folder: Path, document: dict[str, Any], any_version: bool) -> None:
    if document["format"] != FORMAT:
        raise InputError(
            f"study: {folder} has study format {document['format']}, this version reads {FORMAT}; "
            "use the version that wrote it, or choose another folder with --out."
        )
    if document["selfsr"] != __version__ and not any_version:
        raise InputError(
            f"study: {folder} was started with selfsr {document['selfsr']}, this is {__version__}, and runs of two "
            "versions are not comparable; use that version, choose another folder with --out, or read the results "
            "with --summary."
        )


def _compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the changes and removals, and the additions, in words."""
    changed, added = [], []
    for key in ("name", "baseline", "metric", "equal_score", "allowed_differences"):
        if old.get(key) != new.get(key):
            changed.append(f"{key} ({old.get(key)} there, {new.get(key)} here)")
    if old["seeds"] != new["seeds"]:
        grown = set(old["seeds"]) < set(new["seeds"])
        (added if grown else changed).append(f"seeds ({old['seeds']} there, {new['seeds']} here)")
    recipes = _compare_keys("recipe", old["recipes"], new["recipes"], changed, added)
    settings: dict[str, tuple[Any, Any]] = {}
    for name in recipes:
        one, other = old["recipes"][name], new["recipes"][name]
        if one["evaluation_set"] != other["evaluation_set"]:
            changed.append(f"{name}: evaluation_set ({one['evaluation_set']} there, {other['evaluation_set']} here)")
        for arm in _compare_keys("arm", one["arms"], other["arms"], changed, added):
            differences = find_differences(one["arms"][arm], other["arms"][arm])
            settings |= {f"{name}: {path}": values for path, values in differences.items()}
    if settings:
        changed.append(describe_differences(settings))
    # Several recipes repeat the same arm.
    return list(dict.fromkeys(changed)), list(dict.fromkeys(added))


def _compare_keys(
    kind: str, old: dict[str, Any], new: dict[str, Any], changed: list[str], added: list[str]
) -> list[str]:
    """Record missing keys in `changed` and new ones in `added`; return the common keys."""
    changed += [f"the {kind} {key} (missing here)" for key in old if key not in new]
    added += [f"the {kind} {key} (new here)" for key in new if key not in old]
    return [key for key in old if key in new]
