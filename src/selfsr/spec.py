"""The base class of all parts of a recipe, and types that several parts share."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag


class Spec(BaseModel):
    """A typed part of a recipe; unknown keys are errors, and values never change after reading."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _drop_nulls(entries: Any) -> Any:
    if not isinstance(entries, dict):
        return entries
    return {name: entry for name, entry in entries.items() if entry is not None}


# For named entries: null removes one, so that a setting can remove an entry of a recipe.
DropNulls: BeforeValidator = BeforeValidator(_drop_nulls)


def _kind_of_path(value: object) -> str:
    return "several" if isinstance(value, dict) else "one"


# One folder, or one folder for each scale.
PathByScale = Annotated[
    Annotated[Path, Tag("one")] | Annotated[dict[int, Path], Tag("several")], Discriminator(_kind_of_path)
]


def select_path(paths: Path | dict[int, Path] | None, scale: int) -> Path | None:
    """Return the folder of a scale, which is the only folder or the entry of the scale; None if there is none."""
    return paths.get(scale) if isinstance(paths, dict) else paths
