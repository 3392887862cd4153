"""Where two recipes differ, setting by setting."""

from collections.abc import Iterable, Iterator
from typing import Any


class Absent:
    """Stands for a setting that a recipe does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of nested mappings as ("a.b", value); a list is one value."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two documents differ, with both values; `ABSENT` where there is none."""
    first, second = dict(leaves(one)), dict(leaves(other))
    pairs = {path: (first.get(path, ABSENT), second.get(path, ABSENT)) for path in (*first, *second)}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def undeclared(found: dict[str, tuple[Any, Any]], declared: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return the differences that do not follow from the declared paths.

    What stands under a declared path is declared. A setting that exists on one side only comes and goes with its
    declared neighbor or part: another `kind` has other settings, and a block that is made brings its defaults.
    """
    paths = list(declared)
    return {path: pair for path, pair in found.items() if not any(_follows(path, pair, given) for given in paths)}


def _follows(path: str, pair: tuple[Any, Any], given: str) -> bool:
    if path == given or path.startswith(f"{given}."):
        return True
    if ABSENT not in pair:
        return False
    parent = given.rpartition(".")[0]
    return given.startswith(f"{path}.") or (bool(parent) and path.startswith(f"{parent}."))


def told(found: dict[str, tuple[Any, Any]], at_most: int = 6) -> str:
    """Return differences as words: "steps (200 and 300), network.blocks (8 and absent)"."""
    shown = [f"{path} ({_word(one)} and {_word(other)})" for path, (one, other) in list(found.items())[:at_most]]
    rest = len(found) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
