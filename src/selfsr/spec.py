"""The base of everything that a recipe spells out: frozen, typed, and strict about unknown keys."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag


class Spec(BaseModel):
    """A typed part of a recipe. Unknown keys are errors; a spec never changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _without_nulls(parts: Any) -> Any:
    return {name: part for name, part in parts.items() if part is not None} if isinstance(parts, dict) else parts


# For parts that have names of their own: null leaves one out, so that a recipe's can be taken away by a setting.
NullLeavesOut = BeforeValidator(_without_nulls)


def _kind_of_path(value: object) -> str:
    return "several" if isinstance(value, dict) else "one"


# One folder, or one for each scale.
PathByScale = Annotated[
    Annotated[Path, Tag("one")] | Annotated[dict[int, Path], Tag("several")], Discriminator(_kind_of_path)
]


def by_scale(paths: Path | dict[int, Path] | None, scale: int) -> Path | None:
    """Return the folder of a scale: the only one there is, or that of the scale; None where there is none."""
    return paths.get(scale) if isinstance(paths, dict) else paths
