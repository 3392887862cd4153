"""Read recipes from YAML files, apply settings, and write them back with every default."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from selfsr.errors import InputError
from selfsr.recipe.errors import describe_error
from selfsr.recipe.schema import Recipe
from selfsr.spec import Spec

SpecT = TypeVar("SpecT", bound=Spec)


class _Yaml(yaml.SafeLoader):
    """YAML 1.1 with two changes: `1e-4` is a number, and a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is a duplicate", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str, source: str) -> Any:
    """Parse one YAML document.

    Args:
        text: the document.
        source: its file or origin, for error messages.

    Raises:
        InputError: the text is not valid YAML; the message has the line.
    """
    try:
        return yaml.load(text, Loader=_Yaml)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise InputError(f"{source}{line}: expected valid YAML, got an error: {problem}.") from error


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply settings to it.

    Args:
        path: a YAML file.
        settings: changes such as `"method.terms.pixel.weight=2"`.

    Raises:
        InputError: the file is missing or wrong; the message has the key, the expectation and the value.

    Example:
        >>> from selfsr.recipe import load_recipe, shipped_recipes
        >>> load_recipe(shipped_recipes()["small_edsr_x2"], ["steps=100"]).steps
        100
    """
    if not path.is_file():
        raise InputError(f"recipe: {path} does not exist; list the shipped recipes with: selfsr recipes list")
    document = read_settings(path)
    for setting in settings:
        _apply_setting(document, setting)
    return parse_recipe(document, str(path))


def parse_recipe(document: dict[str, Any], source: str) -> Recipe:
    """Check a recipe that is already parsed from YAML.

    Args:
        document: the options by key.
        source: their file or origin, for error messages.

    Raises:
        InputError: an option is unknown, missing or wrong.
    """
    return parse_settings(Recipe, document, source)


def read_settings(path: Path) -> dict[str, Any]:
    """Read the options of a YAML file, without checks.

    Raises:
        InputError: the file is not valid YAML, or not a mapping.
    """
    document = read_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a mapping of options, got {type(document).__name__}.")
    return document


def parse_settings(model: type[SpecT], document: dict[str, Any], source: str) -> SpecT:
    """Check options that are already parsed from YAML against a model.

    Raises:
        InputError: an option is unknown, missing or wrong; the message begins with `source`.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{source}: {describe_error(error, model)}") from error


def _apply_setting(document: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise InputError(f"--set: expected path=value, such as steps=1000, got {setting!r}.")
    *parents, leaf = path.split(".")
    node = document
    for depth, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            key = ".".join(parents[: depth + 1])
            raise InputError(f"--set {setting}: {key} must have options to set, got the value {child!r}.")
        node = child
    node[leaf] = read_yaml(text, f"--set {path}")


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML, with every default."""
    return yaml.safe_dump(_kind_first(recipe.model_dump(mode="json")), sort_keys=False)


def _kind_first(value: Any) -> Any:
    """Move the key `kind` to the front of every mapping."""
    if isinstance(value, list):
        return [_kind_first(element) for element in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: key != "kind")
    return {key: _kind_first(value[key]) for key in keys}


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the shipped recipes by name."""
    folder = Path(__file__).parent / "shipped"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
