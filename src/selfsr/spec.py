"""The base class of all parts of a recipe, and types that several parts share."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag

_LONGEST_NAME = 150


class Spec(BaseModel):
    """A typed part of a recipe; unknown keys are errors, and values never change after reading."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _drop_nulls(entries: Any) -> Any:
    if not isinstance(entries, dict):
        return entries
    return {name: entry for name, entry in entries.items() if entry is not None}


# For named entries: null removes one, so that a setting can remove an entry of a recipe.
DropNulls: BeforeValidator = BeforeValidator(_drop_nulls)


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[\w.\-]*\w[\w.\-]*", name):
        raise ValueError(f"expected letters, digits, '_', '.' and '-', and not only dots, got {name!r}; rename it")
    return _check_entry_name(name)


def _check_entry_name(name: str) -> str:
    if not name.strip(". ") or set(name) & set("/\\\0\n"):
        raise ValueError(f"expected a name without slashes that is not empty, got {name!r}; rename it")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise ValueError(f"expected a name of at most {_LONGEST_NAME} bytes, got {len(os.fsencode(name))}; shorten it")
    return name


# The name of a run or a study, which is that of its folder and is typed in commands.
Name = Annotated[str, AfterValidator(_check_name)]
# The name of a part of a run, which is a part of file names and of the names of logged values.
EntryName = Annotated[str, AfterValidator(_check_entry_name)]


def expand_home(path: Path) -> Path:
    """Return a path with the home folder for `~`; a `~name` without such a user stays as it is."""
    return Path(os.path.expanduser(path))


def _kind_of_path(value: object) -> str:
    return "several" if isinstance(value, dict) else "one"


# One folder, or one folder for each scale.
PathByScale = Annotated[
    Annotated[Path, Tag("one")] | Annotated[dict[int, Path], Tag("several")], Discriminator(_kind_of_path)
]


def select_path(paths: Path | dict[int, Path] | None, scale: int) -> Path | None:
    """Return the folder of a scale, which is the only folder or the entry of the scale; None if there is none."""
    return paths.get(scale) if isinstance(paths, dict) else paths
