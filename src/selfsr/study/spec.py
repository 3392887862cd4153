"""A study: which recipes, what the arms change, which seeds, which score. Read as strictly as a recipe."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from selfsr.errors import InputError
from selfsr.recipe.reading import parse_settings, read_settings, read_yaml
from selfsr.spec import Spec

Score = Literal["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"]

# What arms may differ in only where the study declares it: each of these alone can make the difference.
Condition = Literal["steps", "batch", "crop_px", "data", "start_from"]

_NAME = re.compile(r"[\w.\-]+")
# What the study itself decides for every run.
_DECIDED = {
    "name": "the study names its runs itself; take it out",
    "seed": "every arm runs with the same seeds; list them under seeds",
}


class BaseRecipe(Spec):
    """One recipe of a study."""

    base: str = Field(description="a recipe file, or the name of a shipped recipe")
    set: dict[str, Any] = Field({}, description="what is changed in this recipe for every arm, path: value")


class Arm(Spec):
    """One side of the comparison."""

    set: dict[str, Any] = Field({}, description="what the arm changes in the recipe, path: value")
    note: str = Field("", description="what the arm is, in a sentence, for the page")


class Study(Spec):
    """Recipes x arms x seeds, and the score that decides."""

    name: str = Field(pattern=r"^[\w.\-]+$", description="the study's name, and its folder's")
    base: str | None = Field(None, description="the recipe: a file, or the name of a shipped one")
    recipes: dict[str, BaseRecipe] | None = Field(
        None, description="several recipes by name, in place of base; a list of files or names is short for it"
    )
    set: dict[str, Any] = Field({}, description="what is changed in every recipe for every arm, path: value")
    arms: dict[str, Arm] = Field(min_length=2, description="what is compared; the first is the baseline")
    baseline: str | None = Field(None, description="the arm that the others are compared to, if not the first")
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1, description="every arm runs once with each")
    score: Score = Field("psnr_y", description="the score that is compared")
    judged_on: str | None = Field(None, description="the evaluation set; without it each recipe's first")
    unequal: tuple[Condition, ...] = Field((), description="conditions that arms are allowed to differ in")

    @field_validator("recipes", mode="before")
    @classmethod
    def _short_recipes(cls, recipes: Any) -> Any:
        if isinstance(recipes, list):
            stems = [Path(str(entry)).stem for entry in recipes]
            if len(set(stems)) < len(stems):
                raise ValueError(f"two recipes have one name in {stems}; give a mapping of name: {{base: file}}")
            recipes = dict(zip(stems, recipes, strict=True))
        if isinstance(recipes, dict):
            return {name: {"base": entry} if isinstance(entry, str) else entry for name, entry in recipes.items()}
        return recipes

    @field_validator("arms", mode="before")
    @classmethod
    def _bare_arms(cls, arms: Any) -> Any:
        return {name: entry or {} for name, entry in arms.items()} if isinstance(arms, dict) else arms

    @model_validator(mode="after")
    def _fits_together(self) -> "Study":
        if (self.base is None) == (self.recipes is None):
            came = "none of them" if self.base is None else "both"
            raise ValueError(f"give base for one recipe or recipes for several, got {came}")
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline must be one of the arms {', '.join(self.arms)}, got {self.baseline!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ from one another, got {list(self.seeds)}")
        for kind, names in (("arms", self.arms), ("recipes", self.entries)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise ValueError(f"{kind}: a name has letters, digits, '_', '.' and '-' only, got {name!r}")
        self._leaves_to_the_study()
        return self

    def _leaves_to_the_study(self) -> None:
        places = {"set": self.set}
        places |= {f"recipes.{name}.set": entry.set for name, entry in (self.recipes or {}).items()}
        places |= {f"arms.{name}.set": arm.set for name, arm in self.arms.items()}
        for place, settings in places.items():
            for path in settings:
                if reason := _DECIDED.get(path):
                    raise ValueError(f"{place}.{path}: {reason}")

    @property
    def entries(self) -> dict[str, BaseRecipe]:
        """The recipes by name, whichever way they were given."""
        if self.recipes is not None:
            return self.recipes
        assert self.base is not None
        return {Path(self.base).stem: BaseRecipe(base=self.base, set={})}

    @property
    def baseline_arm(self) -> str:
        """The arm that the others are compared to."""
        return self.baseline or next(iter(self.arms))


def load_study(path: Path, settings: Sequence[str] = ()) -> Study:
    """Read and check the study in `path`.

    Args:
        path: a YAML file.
        settings: changes such as `"base.steps=200"`, which changes every recipe for every arm, or `"seeds=[1,2]"`.

    Raises:
        InputError: the file is missing or wrong; the message has the path, the value and what was expected.
    """
    if not path.is_file():
        raise InputError(f"study: {path} does not exist; docs/studies/README.md says how to write one.")
    document = read_settings(path)
    for setting in settings:
        _lay_over(document, setting)
    return parse_settings(Study, document, str(path))


def _lay_over(document: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    head, _, rest = path.partition(".")
    if not equals or not path:
        raise InputError(f"--set: expected path=value, such as base.steps=1000 or seeds=[1,2], got {setting!r}.")
    value = read_yaml(text, f"--set {path}")
    if not rest:
        document[head] = value
    elif head == "base":
        common = document.setdefault("set", {})
        if not isinstance(common, dict):
            raise InputError(f"--set {setting}: set is the value {common!r}, it has no parts to set.")
        common[rest] = value
    else:
        raise InputError(
            f"--set {setting}: a study takes base.path=value for every recipe and key=value for itself; "
            "change arms and recipes in the file."
        )


def recipe_settings(changes: dict[str, Any]) -> list[str]:
    """Return changes as a recipe's `path=value` settings; JSON is YAML, so that every value arrives as it was."""
    return [f"{path}={json.dumps(value, default=str)}" for path, value in changes.items()]
