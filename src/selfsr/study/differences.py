"""Compare two recipes, setting by setting."""

from collections.abc import Iterable, Iterator
from typing import Any


class Absent:
    """The value of a setting that a recipe does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def list_settings(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of nested mappings as `("a.b", value)`; a list is one value."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from list_settings(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def find_differences(first: Any, second: Any) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two documents differ, with both values; `ABSENT` for a missing one."""
    first, second = dict(list_settings(first)), dict(list_settings(second))
    pairs = {path: (first.get(path, ABSENT), second.get(path, ABSENT)) for path in (*first, *second)}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def find_undeclared(differences: dict[str, tuple[Any, Any]], declared: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return the differences that do not follow from the declared paths.

    Everything below a declared path is declared. A setting that only one side has follows from a declared neighbor
    or part: another `kind` has other settings, and a new block brings its defaults.
    """
    paths = list(declared)
    return {
        path: values
        for path, values in differences.items()
        if not any(_follows(path, values, declared_path) for declared_path in paths)
    }


def _follows(path: str, values: tuple[Any, Any], declared: str) -> bool:
    if path == declared or path.startswith(f"{declared}."):
        return True
    if ABSENT not in values:
        return False
    parent = declared.rpartition(".")[0]
    return declared.startswith(f"{path}.") or (bool(parent) and path.startswith(f"{parent}."))


def describe_differences(differences: dict[str, tuple[Any, Any]], at_most: int = 6) -> str:
    """Return differences in words: "steps (200 and 300), network.blocks (8 and absent)"."""
    first = list(differences.items())[:at_most]
    shown = [f"{path} ({_format(one)} and {_format(other)})" for path, (one, other) in first]
    rest = len(differences) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _format(value: Any) -> str:
    return "null" if value is None else str(value)
