"""From YAML to a recipe and back: read strictly, settings laid over it, every default spelled out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from selfsr.errors import InputError
from selfsr.recipe.errors import sentence
from selfsr.recipe.schema import Recipe
from selfsr.spec import Spec

_Model = TypeVar("_Model", bound=Spec)


class _Yaml(yaml.SafeLoader):
    """YAML 1.1 with two amends: `1e-4` is a number, and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str, where: str) -> Any:
    """Parse one YAML document; a syntax error is one sentence with the line."""
    try:
        return yaml.load(text, Loader=_Yaml)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{place}: not valid YAML: {getattr(error, 'problem', None) or error}.") from error


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read and check the recipe in `path`, with `settings` such as `"method.terms.pixel.weight=2"` laid over it.

    Raises:
        InputError: the file is missing or wrong; the message has the path, the value and what was expected.
    """
    if not path.is_file():
        raise InputError(f"recipe: {path} does not exist; list the shipped ones with: selfsr recipes list")
    document = read_settings(path)
    for setting in settings:
        _lay_over(document, setting)
    return parse_recipe(document, str(path))


def parse_recipe(document: dict[str, Any], where: str) -> Recipe:
    """Check a recipe that is already parsed from YAML."""
    return parse_settings(Recipe, document, where)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML file, not yet checked.

    Raises:
        InputError: the file is no YAML, or holds no mapping.
    """
    document = read_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a mapping of settings, got {type(document).__name__}.")
    return document


def parse_settings(model: type[_Model], document: dict[str, Any], where: str) -> _Model:
    """Check settings by the model that they are of; what is wrong is one sentence that begins with `where`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InputError(f"{where}: {sentence(error, model)}") from error


def _lay_over(document: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise InputError(f"--set: expected path=value, such as steps=1000, got {setting!r}.")
    *parents, leaf = path.split(".")
    node = document
    for depth, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            came = ".".join(parents[: depth + 1])
            raise InputError(f"--set {setting}: {came} is the value {child!r}, it has no parts to set.")
        node = child
    node[leaf] = read_yaml(text, f"--set {path}")


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, every default spelled out."""
    return yaml.safe_dump(_kind_first(recipe.model_dump(mode="json")), sort_keys=False)


def _kind_first(value: Any) -> Any:
    """Put what a part is before its options, wherever in its classes these are declared."""
    if isinstance(value, list):
        return [_kind_first(part) for part in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: key != "kind")
    return {key: _kind_first(value[key]) for key in keys}


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    folder = Path(__file__).parent / "shipped"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
