"""The study file: recipes, arms, seeds and the metric to compare."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, field_validator, model_validator

from selfsr.errors import InputError, shorten
from selfsr.evaluation.metrics import list_standard_metrics
from selfsr.recipe import Recipe
from selfsr.recipe.reading import parse_settings, read_settings
from selfsr.recipe.settings import read_value, split_setting
from selfsr.spec import Name, Spec

# The names are those of the registry.
if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[list_standard_metrics()]

# Arms may differ in these only if the study allows it, since each of them can explain a difference in scores.
ArmCondition = Literal["steps", "batch", "crop_px", "data", "start_from"]

_NAME = re.compile(r"[\w.\-]+")
# Recipe settings that the study itself sets.
_SET_BY_STUDY = {
    "name": "the study names its runs itself; remove this setting",
    "seed": "every arm runs with the same seeds; list them under seeds",
}


class BaseRecipe(Spec):
    """One recipe of a study."""

    base: str = Field(description="a recipe file, or the name of a shipped recipe")
    set: dict[str, Any] = Field({}, description="changes to this recipe for every arm, path: value")


class Arm(Spec):
    """One configuration that is compared."""

    set: dict[str, Any] = Field({}, description="the arm's changes to the recipe, path: value")
    note: str = Field("", description="one sentence about the arm, for the page")


class Study(Spec):
    """A study: recipes x arms x seeds, and the metric to compare."""

    name: Name = Field(description="name of the study and of its folder")
    base: str | None = Field(None, description="the recipe: a file, or the name of a shipped recipe")
    recipes: dict[str, BaseRecipe] | None = Field(
        None, description="several recipes by name, instead of base; a list of files or names also works"
    )
    set: dict[str, Any] = Field({}, description="changes to every recipe for every arm, path: value")
    arms: dict[str, Arm] = Field(min_length=2, description="the arms to compare; the first is the baseline")
    baseline: str | None = Field(None, description="the arm to compare with; the first by default")
    seeds: tuple[NonNegativeInt, ...] = Field(
        min_length=1, description="training seeds; every arm is trained once with each"
    )
    metric: MetricName = Field("psnr_y", description="the metric to compare by")
    equal_score: FiniteFloat | None = Field(
        None,
        description="value of `metric` at which the other metrics are compared, such as 31 (dB); each run is "
        "interpolated linearly where it first crosses it",
    )
    evaluation_set: str | None = Field(
        None, description="the evaluation set to compare on; each recipe's first by default"
    )
    allowed_differences: tuple[ArmCondition, ...] = Field(
        (), description="training conditions in which arms may differ; other differences of these are refused"
    )

    @field_validator("recipes", mode="before")
    @classmethod
    def _expand_recipes(cls, recipes: Any) -> Any:
        if isinstance(recipes, list):
            stems = [Path(str(entry)).stem for entry in recipes]
            if len(set(stems)) < len(stems):
                raise ValueError(f"expected different file names, got {stems}; write a mapping of name: {{base: file}}")
            recipes = dict(zip(stems, recipes, strict=True))
        if isinstance(recipes, dict):
            return {name: {"base": entry} if isinstance(entry, str) else entry for name, entry in recipes.items()}
        return recipes

    @field_validator("arms", mode="before")
    @classmethod
    def _expand_arms(cls, arms: Any) -> Any:
        return {name: entry or {} for name, entry in arms.items()} if isinstance(arms, dict) else arms

    @model_validator(mode="after")
    def _check(self) -> "Study":
        if (self.base is None) == (self.recipes is None):
            received = "neither" if self.base is None else "both"
            raise ValueError(f"expected base for one recipe or recipes for several, got {received}")
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline must be one of the arms {', '.join(self.arms)}, got {self.baseline!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ from one another, got {list(self.seeds)}")
        for kind, names in (("arms", self.arms), ("recipes", self.entries)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise ValueError(f"{kind}: a name has letters, digits, '_', '.' and '-' only, got {name!r}")
        self._check_settings()
        return self

    def _check_settings(self) -> None:
        settings_by_key = {"set": self.set}
        settings_by_key |= {f"recipes.{name}.set": entry.set for name, entry in (self.recipes or {}).items()}
        settings_by_key |= {f"arms.{name}.set": arm.set for name, arm in self.arms.items()}
        for key, settings in settings_by_key.items():
            for path in settings:
                if reason := _SET_BY_STUDY.get(path):
                    raise ValueError(f"{key}.{path}: {reason}")

    @property
    def entries(self) -> dict[str, BaseRecipe]:
        """The recipes by name, from `recipes` or `base`."""
        if self.recipes is not None:
            return self.recipes
        assert self.base is not None
        return {Path(self.base).stem: BaseRecipe(base=self.base, set={})}

    @property
    def baseline_arm(self) -> str:
        """The name of the arm to compare with."""
        return self.baseline or next(iter(self.arms))


def split_settings(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the settings of the command line that change the study, and those that change its recipes.

    Args:
        settings: each `path=value`; `"base.steps=200"` changes every recipe for every arm, `"seeds=[1,2]"` the study.

    Returns:
        The settings of the study, and those of the recipes without `base.`.

    Raises:
        InputError: a setting has another form, or sets what the study sets.
    """
    of_study, of_recipes = [], []
    for setting in settings:
        path, _ = split_setting(setting, "path=value, such as base.steps=1000 or seeds=[1,2]")
        head, _, rest = path.partition(".")
        if head in Recipe.model_fields and head not in Study.model_fields:
            advice = _SET_BY_STUDY.get(path, f"write --set base.{setting}")
            raise InputError(
                f"--set {shorten(setting)}: expected a setting of the study, got one of its recipes; {advice}."
            )
        if not rest:
            of_study.append(setting)
        elif head != "base":
            raise InputError(
                f"--set {shorten(setting)}: expected base.path=value for all recipes or key=value for the study; "
                "change arms and recipes in the file."
            )
        elif reason := _SET_BY_STUDY.get(rest):
            raise InputError(f"--set {path}: {reason}.")
        else:
            of_recipes.append(setting.removeprefix(f"{head}."))
    return of_study, of_recipes


def load_study(path: Path, settings: Sequence[str] = ()) -> Study:
    """Read and check a study file.

    Args:
        path: a YAML file.
        settings: changes to keys of the study, such as `"seeds=[1,2]"`.

    Raises:
        InputError: the file is missing or has a mistake.
    """
    if not path.is_file():
        raise InputError(f"study: {path} does not exist; see docs/studies/README.md for how to write one.")
    document = read_settings(path)
    if {"network", "method"} <= document.keys() and not {"arms", "seeds"} & document.keys():
        raise InputError(f"study: expected a study file, got {path}, which is a recipe; run `selfsr train {path}`.")
    if "format" in document and "history" in document:
        raise InputError(
            f"study: expected a study file, got {path}, the definition of a study folder; pass {path.parent}."
        )
    for setting in settings:
        key, text = split_setting(setting, "key=value, such as seeds=[1,2]")
        document[key] = read_value(Study, document, key, text)
    return parse_settings(Study, document, str(path), settings)
