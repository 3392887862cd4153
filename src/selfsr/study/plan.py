"""Resolve a study to its runs, and reject unfair comparisons."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from selfsr.errors import InputError
from selfsr.models import find_model
from selfsr.recipe import Recipe, load_recipe, shipped_recipes
from selfsr.recipe.settings import Setting, sets_option, split_setting
from selfsr.spec import select_path
from selfsr.study.differences import describe_differences, find_differences, find_undeclared
from selfsr.study.spec import ArmCondition, Study

# Settings that change neither the trained weights nor their scores.
_WITHOUT_EFFECT = ("name", "seed", "workers", "log", "checkpoints")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: name of the run and of its folder.
        setup: name of the recipe in the study.
        arm: name of the arm.
        seed: seed of the run.
        recipe: the resolved recipe, with this name and seed.
    """

    name: str
    setup: str
    arm: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class StudySetup:
    """One recipe of the study with its arms.

    Attributes:
        name: name of the recipe in the study.
        evaluation_set: the evaluation set to compare on.
        arms: the resolved recipe of each arm; name and seed are still those of the recipe file.
    """

    name: str
    evaluation_set: str
    arms: dict[str, Recipe]


@dataclass(frozen=True)
class StudyPlan:
    """A resolved study.

    Attributes:
        name: name of the study.
        baseline: name of the arm to compare with.
        metric: key of the metric to compare by.
        seeds: seeds of every arm.
        allowed_differences: conditions in which arms may differ.
        changes: the changes that each arm declares, path to value.
        notes: one sentence about each arm, may be empty.
        setups: the recipes by name.
        history: one sentence for each extension of the study.
        equal_score: score at which the other metrics are compared, or None.
        common: the changes to every recipe, path to value, by their place: `set` of the file, and `--set`. An arm may
            replace them. Empty for a plan that was read from a folder.
    """

    name: str
    baseline: str
    metric: str
    seeds: tuple[int, ...]
    allowed_differences: tuple[str, ...]
    changes: dict[str, dict[str, Any]]
    notes: dict[str, str]
    setups: dict[str, StudySetup]
    history: tuple[str, ...] = ()
    equal_score: float | None = None
    common: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)

    def runs(self) -> list[PlannedRun]:
        """Return all runs, seed by seed, so that a study that stops early has complete comparisons."""
        runs = []
        for seed in self.seeds:
            for setup in self.setups.values():
                for arm, recipe in setup.arms.items():
                    name = f"{setup.name}-{arm}-seed{seed}"
                    own_recipe = recipe.model_copy(update={"name": name, "seed": seed})
                    runs.append(PlannedRun(name, setup.name, arm, seed, own_recipe))
        return runs


def resolve_study(study: Study, file: str, settings: Sequence[str] = ()) -> StudyPlan:
    """Resolve every arm of every recipe.

    Args:
        study: the study.
        file: path of the study file, for messages and for recipes next to it.
        settings: changes to every recipe, each `path=value`. They replace settings of the file, except an arm's own.

    Raises:
        InputError: a recipe is missing or has a mistake, or the comparison of the arms would be unfair.
    """
    _check_effect(study, settings)
    setups = {}
    for name, entry in study.entries.items():
        common = [*{**study.set, **entry.set}.items(), *settings]
        path = _find_recipe(entry.base, Path(file).parent)
        places = dict.fromkeys(study.set, f"{file}: set") | dict.fromkeys(entry.set, f"{file}: recipes.{name}.set")
        base = _load_arm(path, common, f"{file}: {'base' if study.recipes is None else f'recipes.{name}'}", places)
        arms = {}
        for arm, spec in study.arms.items():
            own = places | dict.fromkeys(spec.set, f"{file}: arms.{arm}.set")
            arms[arm] = _load_arm(path, [*common, *spec.set.items()], f"{file}: arms.{arm}", own)
            _check_declared(file, name, arm, base, arms[arm], spec.set)
        setups[name] = StudySetup(name, _check_evaluation_set(file, name, base, study.evaluation_set), arms)
        _check_fairness(file, setups[name], study)
    differing = {
        condition
        for setup in setups.values()
        for recipe in setup.arms.values()
        for condition in _find_conditions(setup.arms[study.baseline_arm], recipe)
    }
    if unused := [condition for condition in study.allowed_differences if condition not in differing]:
        raise InputError(f"{file}: allowed_differences: no arm differs in {', '.join(unused)}; remove it.")
    plan = StudyPlan(
        study.name,
        study.baseline_arm,
        study.metric,
        study.seeds,
        study.allowed_differences,
        {arm: dict(spec.set) for arm, spec in study.arms.items()},
        {arm: spec.note for arm, spec in study.arms.items()},
        setups,
        equal_score=study.equal_score,
        common={"set": study.set, "--set": dict(split_setting(setting, "path=value") for setting in settings)},
    )
    _check_names(file, plan.runs())
    return plan


def check_inputs(plan: StudyPlan) -> None:
    """Check that the recipes' input files exist, before the first run starts.

    Raises:
        InputError: a folder or a file does not exist.
    """
    for setup in plan.setups.values():
        for arm, recipe in setup.arms.items():
            for key, path in _list_paths(recipe):
                if not path.exists():
                    raise InputError(
                        f"study: recipe {setup.name}, arm {arm}: {key}: {path} does not exist; "
                        f"set an existing one with --set base.{key}=..."
                    )


def _list_paths(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    start = None if recipe.start_from is None else find_model(recipe.start_from)
    paths: dict[str, Path | None] = {"start_from": start}
    for place, part in recipe.data.parts.items():
        paths[f"{place}.hr"] = part.hr
        for scale in recipe.scales:
            paths[f"{place}.lr" if len(recipe.scales) == 1 else f"{place}.lr.{scale}"] = part.lr_folder(scale)
    for name, entry in (recipe.evaluate.sets if recipe.evaluate else {}).items():
        paths[f"evaluate.sets.{name}.hr"] = entry.hr
        for scale in recipe.scales:
            key = f"evaluate.sets.{name}.lr" + ("" if len(recipe.scales) == 1 else f".{scale}")
            paths[key] = select_path(entry.lr, scale)
    for place in ("network", "method"):  # teachers, pretrained bases, autoencoders, weights of terms
        paths |= _find_paths(getattr(recipe, place), place)
    yield from ((key, path) for key, path in paths.items() if path is not None)


def _find_paths(value: Any, key: str) -> dict[str, Path | None]:
    """Return the paths among options, by their keys."""
    if isinstance(value, Path):
        return {key: value}
    if isinstance(value, BaseModel):
        value = dict(value)
    found: dict[str, Path | None] = {}
    for name, part in value.items() if isinstance(value, dict) else ():
        found |= _find_paths(part, f"{key}.{name}")
    return found


def _find_recipe(base: str, study_folder: Path) -> Path:
    """Return the path of a shipped recipe, a file, or a file next to the study, in this order; it may not exist."""
    shipped = shipped_recipes().get(base)
    if shipped is not None:
        return shipped
    return Path(base) if Path(base).exists() else study_folder / base


def _check_effect(study: Study, settings: Sequence[str]) -> None:
    """Check that no setting of the command line is replaced by every arm."""
    for setting in settings:
        path, _ = split_setting(setting, "path=value")
        if all(any(f"{path}.".startswith(f"{own}.") for own in arm.set) for arm in study.arms.values()):
            raise InputError(
                f"--set base.{path}: expected a change that has an effect, got one that every arm replaces by its own "
                f"value ({', '.join(study.arms)}); change the arms in the file."
            )


def _load_arm(path: Path, settings: Sequence[Setting], key: str, places: Mapping[str, str]) -> Recipe:
    """Read a recipe and apply the settings of an arm to it.

    Args:
        path: the recipe.
        settings: the changes to it.
        key: where the study names the recipe, for messages.
        places: where the study file sets an option, by the option.
    """
    try:
        return load_recipe(path, settings)
    except InputError as error:
        text = str(error)
        at = text.removeprefix("--set ").partition(":")[0].partition("=")[0]
        if text.startswith("--set ") and sets_option(settings, at):
            raise InputError(name_study_settings(text)) from error
        sentence = text.removeprefix(f"{path}: ")
        option = sentence.partition(": ")[0]
        place = next((places[own] for own in reversed(list(places)) if f"{option}.".startswith(f"{own}.")), None)
        if place is not None and sentence != text:
            raise InputError(f"{place}: {name_study_settings(sentence)}") from error
        raise InputError(f"{key}: {name_study_settings(text)}") from error


def name_study_settings(text: str) -> str:
    """Return a message about a recipe with the names that its settings have for `selfsr study`."""
    return re.sub(r"--set ('?)(?!base\.)", r"--set \1base.", text)


def _document(recipe: Recipe, without: Sequence[str] = ("name", "seed")) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude=set(without))


def _check_declared(file: str, setup: str, arm: str, base: Recipe, recipe: Recipe, declared: dict[str, Any]) -> None:
    hidden = find_undeclared(find_differences(_document(base), _document(recipe)), declared)
    if hidden:
        raise InputError(
            f"{file}: arms.{arm}: differs from the recipe {setup} in more settings than its set has: "
            f"{describe_differences(hidden)}; add these to its set."
        )


def _check_fairness(file: str, setup: StudySetup, study: Study) -> None:
    baseline, standard = study.baseline_arm, setup.arms[study.baseline_arm]
    for arm, recipe in setup.arms.items():
        differences = find_differences(_document(standard), _document(recipe))
        evaluation = {path: values for path, values in differences.items() if path.startswith("evaluate")}
        if evaluation:
            raise InputError(
                f"{file}: arms.{arm}: is evaluated differently from {baseline}: {describe_differences(evaluation)}; "
                "change evaluate for all arms under set."
            )
        if "scale" in differences:
            raise InputError(
                f"{file}: arms.{arm}: has scale {recipe.scale} and {baseline} has {standard.scale}, "
                "which is another task; list a recipe for each scale under recipes."
            )
        for condition, differs in _find_conditions(standard, recipe).items():
            if condition not in study.allowed_differences:
                raise InputError(
                    f"{file}: arms.{arm}: differs from {baseline} in {describe_differences(differs)}, which can "
                    "explain a difference in scores; change it for all arms under set, or add "
                    f"allowed_differences: [{condition}]."
                )
    trained = {arm: _document(recipe, _WITHOUT_EFFECT) for arm, recipe in setup.arms.items()}
    for one, other in combinations(trained, 2):
        if trained[one] == trained[other]:
            raise InputError(
                f"{file}: arms.{other}: is the same training as arms.{one} in the recipe {setup.name}; "
                "change or remove one of them."
            )


def _find_conditions(standard: Recipe, recipe: Recipe) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return the conditions in which an arm differs from the baseline, with the differing settings of each."""
    differences = find_differences(_document(standard), _document(recipe))
    conditions = {}
    for condition in get_args(ArmCondition):
        differs = {path: values for path, values in differences.items() if path.split(".")[0] == condition}
        if differs:
            conditions[condition] = differs
    starts = tuple(str(one.start_from or one.method.generator_start) for one in (standard, recipe))
    if starts[0] != starts[1]:
        conditions.setdefault("start_from", {"the weights that the method starts from": starts})
    return conditions


def _check_evaluation_set(file: str, setup: str, recipe: Recipe, wanted: str | None) -> str:
    if recipe.evaluate is None:
        raise InputError(
            f"{file}: the recipe {setup} has no evaluation (evaluate is null); add sets under set: evaluate.sets."
        )
    known = list(recipe.evaluation_sets)
    if wanted is not None and wanted not in known:
        raise InputError(
            f"{file}: evaluation_set: expected a set of the recipe {setup} ({', '.join(known)}), got {wanted!r}."
        )
    return wanted or known[0]


def _check_names(file: str, runs: list[PlannedRun]) -> None:
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        if other := seen.get(run.name):
            raise InputError(
                f"{file}: recipe {other.setup} with arm {other.arm} and recipe {run.setup} with arm {run.arm} "
                f"have the same run name {run.name}; rename one."
            )
        seen[run.name] = run
