"""From a study to its runs: every arm of every recipe resolved, and refused where the comparison would be unfair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from selfsr.errors import InputError
from selfsr.recipe import Recipe, load_recipe, shipped_recipes
from selfsr.spec import by_scale
from selfsr.study.differences import differences, told, undeclared
from selfsr.study.spec import Condition, Study, recipe_settings

# Settings that leave the trained weights and their scores as they are.
_WITHOUT_EFFECT = ("name", "seed", "workers", "log", "checkpoints")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: of the run and its folder.
        setup: name of the recipe in the study.
        arm: name of the arm.
        seed: start of all randomness.
        recipe: what is trained, with that name and seed.
    """

    name: str
    setup: str
    arm: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Setup:
    """One recipe of the study with its arms.

    Attributes:
        name: in the study.
        judged_on: the evaluation set that decides.
        arms: the resolved recipe of each arm; name and seed are still the recipe's own.
    """

    name: str
    judged_on: str
    arms: dict[str, Recipe]


@dataclass(frozen=True)
class Plan:
    """A study, resolved.

    Attributes:
        name: of the study.
        baseline: the arm that the others are compared to.
        score: key of the score that decides.
        seeds: of every arm.
        unequal: the conditions that arms are declared to differ in.
        changes: what each arm says that it changes, path to value.
        notes: what each arm is, in words; may be empty.
        setups: the recipes by name.
        history: one sentence for each time that the study was extended.
    """

    name: str
    baseline: str
    score: str
    seeds: tuple[int, ...]
    unequal: tuple[str, ...]
    changes: dict[str, dict[str, Any]]
    notes: dict[str, str]
    setups: dict[str, Setup]
    history: tuple[str, ...] = ()

    def runs(self) -> list[PlannedRun]:
        """Return every run, seed by seed: a study that is stopped early has whole comparisons."""
        found = []
        for seed in self.seeds:
            for setup in self.setups.values():
                for arm, recipe in setup.arms.items():
                    name = f"{setup.name}-{arm}-seed{seed}"
                    found.append(
                        PlannedRun(name, setup.name, arm, seed, recipe.model_copy(update={"name": name, "seed": seed}))
                    )
        return found


def resolve(study: Study, where: str) -> Plan:
    """Resolve every arm of every recipe.

    Args:
        study: what to test.
        where: the study's file, for messages and for recipes that stand beside it.

    Raises:
        InputError: a recipe is missing or wrong, or the arms cannot be compared fairly.
    """
    setups = {}
    for name, entry in study.entries.items():
        common = {**study.set, **entry.set}
        path = _find(entry.base, Path(where).parent)
        base = _load(path, common, f"{where}: {'base' if study.recipes is None else f'recipes.{name}'}")
        arms = {}
        for arm, spec in study.arms.items():
            arms[arm] = _load(path, {**common, **spec.set}, f"{where}: arms.{arm}")
            _says_it_all(where, name, arm, base, arms[arm], spec.set)
        setups[name] = Setup(name, _judged_on(where, name, base, study.judged_on), arms)
        _fair(where, setups[name], study)
    used = {
        condition
        for setup in setups.values()
        for recipe in setup.arms.values()
        for condition in _unequal(setup.arms[study.baseline_arm], recipe)
    }
    if idle := [condition for condition in study.unequal if condition not in used]:
        raise InputError(f"{where}: unequal: names {', '.join(idle)}, in which no arm differs; take it out.")
    plan = Plan(
        study.name,
        study.baseline_arm,
        study.score,
        study.seeds,
        study.unequal,
        {arm: dict(spec.set) for arm, spec in study.arms.items()},
        {arm: spec.note for arm, spec in study.arms.items()},
        setups,
    )
    _own_names(where, plan.runs())
    return plan


def check_inputs(plan: Plan) -> None:
    """Check that the files that the recipes name are there, before the first run starts.

    Raises:
        InputError: a folder or a file is missing.
    """
    for setup in plan.setups.values():
        for arm, recipe in setup.arms.items():
            for key, path in _named_paths(recipe):
                if not path.exists():
                    raise InputError(
                        f"study: recipe {setup.name}, arm {arm}: {key}: {path} does not exist; "
                        f"name another with --set base.{key}=..."
                    )


def _named_paths(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    found: dict[str, Path | None] = {"data.hr": recipe.data.hr, "start_from": recipe.start_from}
    for scale in recipe.scales:
        found["data.lr" if len(recipe.scales) == 1 else f"data.lr.{scale}"] = recipe.data.lr_folder(scale)
    for name, entry in (recipe.evaluate.sets if recipe.evaluate else {}).items():
        found[f"evaluate.sets.{name}.hr"] = entry.hr
        for scale in recipe.scales:
            key = f"evaluate.sets.{name}.lr" + ("" if len(recipe.scales) == 1 else f".{scale}")
            found[key] = by_scale(entry.lr, scale)
    yield from ((key, path) for key, path in found.items() if path is not None)


def _find(base: str, beside: Path) -> Path:
    """Return the recipe's file: a shipped one, a path as it stands, or one beside the study."""
    shipped = shipped_recipes().get(base)
    if shipped is not None:
        return shipped
    return Path(base) if Path(base).exists() or not (beside / base).exists() else beside / base


def _load(path: Path, changes: Mapping[str, Any], where: str) -> Recipe:
    try:
        return load_recipe(path, recipe_settings(dict(changes)))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _document(recipe: Recipe, without: Sequence[str] = ("name", "seed")) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude=set(without))


def _says_it_all(where: str, setup: str, arm: str, base: Recipe, recipe: Recipe, declared: dict[str, Any]) -> None:
    hidden = undeclared(differences(_document(base), _document(recipe)), declared)
    if hidden:
        raise InputError(
            f"{where}: arms.{arm}: differs from the recipe {setup} in more than its set says: {told(hidden)}; "
            "name these in its set, too."
        )


def _fair(where: str, setup: Setup, study: Study) -> None:
    baseline, standard = study.baseline_arm, setup.arms[study.baseline_arm]
    for arm, recipe in setup.arms.items():
        found = differences(_document(standard), _document(recipe))
        judged = {path: pair for path, pair in found.items() if path.startswith("evaluate")}
        if judged:
            raise InputError(
                f"{where}: arms.{arm}: is judged otherwise than {baseline}: {told(judged)}; "
                "change evaluate for all arms under set."
            )
        if "scale" in found:
            raise InputError(
                f"{where}: arms.{arm}: has scale {recipe.scale} and {baseline} has {standard.scale}, "
                "which is another task; give each scale a recipe of its own under recipes."
            )
        for condition, differs in _unequal(standard, recipe).items():
            if condition not in study.unequal:
                raise InputError(
                    f"{where}: arms.{arm}: differs from {baseline} in {told(differs)}, which alone can make the "
                    f"difference; change it for all arms under set, or declare it with unequal: [{condition}]."
                )
    trained = {arm: _document(recipe, _WITHOUT_EFFECT) for arm, recipe in setup.arms.items()}
    for one, other in combinations(trained, 2):
        if trained[one] == trained[other]:
            raise InputError(
                f"{where}: arms.{other}: trains the same as arms.{one} in the recipe {setup.name}; "
                "change one of them or take it out."
            )


def _unequal(standard: Recipe, recipe: Recipe) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return the conditions in which an arm differs from the baseline, each with where it differs."""
    found = differences(_document(standard), _document(recipe))
    conditions = {}
    for condition in get_args(Condition):
        differs = {path: pair for path, pair in found.items() if path.split(".")[0] == condition}
        if differs:
            conditions[condition] = differs
    return conditions


def _judged_on(where: str, setup: str, recipe: Recipe, wanted: str | None) -> str:
    if recipe.evaluate is None:
        raise InputError(
            f"{where}: the recipe {setup} is never judged (evaluate is null); name its sets under set: evaluate.sets."
        )
    known = list(recipe.evaluation_sets)
    if wanted is not None and wanted not in known:
        raise InputError(
            f"{where}: judged_on: expected a set of the recipe {setup}, {', '.join(known)}, got {wanted!r}."
        )
    return wanted or known[0]


def _own_names(where: str, runs: list[PlannedRun]) -> None:
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        if former := seen.get(run.name):
            raise InputError(
                f"{where}: recipe {former.setup} with arm {former.arm} and recipe {run.setup} with arm {run.arm} "
                f"would both run as {run.name}; rename one."
            )
        seen[run.name] = run
