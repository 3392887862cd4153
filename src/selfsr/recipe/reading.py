"""Read recipes from YAML files, apply settings, and write them back with every default."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from selfsr.errors import InputError, describe_value, find_similar, shorten
from selfsr.recipe.errors import describe_error
from selfsr.recipe.from_file import replace_network
from selfsr.recipe.schema import Recipe
from selfsr.recipe.settings import Setting, check_removal, find_setting_within, read_value, sets_option, split_setting
from selfsr.recipe.yaml12 import read_text, read_yaml, write_yaml
from selfsr.spec import Spec

SpecT = TypeVar("SpecT", bound=Spec)
_SUFFIXES = (".yaml", ".yml")


def load_recipe(path: Path, settings: Sequence[Setting] = ()) -> Recipe:
    """Read a recipe and apply settings to it.

    Args:
        path: a YAML file.
        settings: changes such as `"method.terms.pixel.weight=2"`, or a path and its value. The text of a word or a
            file is taken as it stands; other text is YAML.

    Raises:
        InputError: the file is missing or wrong; the message has the key, the expectation and the value.

    Example:
        >>> from selfsr.recipe import load_recipe, shipped_recipes
        >>> load_recipe(shipped_recipes()["small_edsr_x2"], ["steps=100"]).steps
        100
    """
    if not path.is_file():
        raise _missing_recipe_error(path)
    document = read_settings(path)
    for setting in settings:
        _apply_setting(document, setting)
    return parse_recipe(document, str(path), settings)


def parse_recipe(document: dict[str, Any], source: str, settings: Sequence[Setting] = ()) -> Recipe:
    """Check a recipe that is already parsed from YAML.

    Args:
        document: the options by key.
        source: their file or origin, for error messages.
        settings: those that the options have already, for error messages.

    Raises:
        InputError: an option is unknown, missing or wrong.
    """
    try:
        document = replace_network(document)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return parse_settings(Recipe, document, source, settings)


def read_settings(path: Path) -> dict[str, Any]:
    """Read the options of a YAML file, without checks.

    Raises:
        InputError: the file is not valid YAML, or not a mapping.
    """
    document = read_yaml(read_text(path), str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a mapping of options, got {type(document).__name__}.")
    return document


def parse_settings(
    model: type[SpecT], document: dict[str, Any], source: str, settings: Sequence[Setting] = ()
) -> SpecT:
    """Check options that are already parsed from YAML against a model.

    Raises:
        InputError: an option is unknown, missing or wrong; the message begins with `source`, or with `--set` if one of
            the settings gave the option. If a setting gave a part of the options, it has both.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        sentence = describe_error(error, model)
        key = sentence.partition(": ")[0]
        if sets_option(settings, key):
            raise InputError(f"--set {sentence}") from error
        inner = find_setting_within(settings, key)  # the file and the setting together are wrong
        raise InputError(f"{source}{f' with --set {inner}' if inner else ''}: {sentence}") from error


def _apply_setting(document: dict[str, Any], setting: Setting) -> None:
    path, value = split_setting(setting, "path=value, such as steps=1000") if isinstance(setting, str) else setting
    *parents, leaf = path.split(".")
    node = document
    for depth, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            key, text = ".".join(parents[: depth + 1]), setting if isinstance(setting, str) else path
            raise InputError(
                f"--set {shorten(text)}: {shorten(key)} must have options to set, got the value "
                f"{describe_value(child)}; write all its options in braces: --set '{shorten(key)}={{...}}'."
            )
        node = child
    if not isinstance(setting, str):
        node[leaf] = copy.deepcopy(value)
        return
    value = read_value(Recipe, document, path, value)
    if path == "network.kind" and value == "from_file":
        node.clear()  # the file sets the options
    if value is None:
        check_removal(Recipe, document, node, path)
    node[leaf] = value


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML, with every default."""
    return write_yaml(order_kind_first(recipe.model_dump(mode="json")))


def order_kind_first(value: Any) -> Any:
    """Return the value with the key `kind` at the front of every mapping."""
    if isinstance(value, list):
        return [order_kind_first(element) for element in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: key != "kind")
    return {key: order_kind_first(value[key]) for key in keys}


def _missing_recipe_error(path: Path) -> InputError:
    """Return the error for a path without a file; it names a similar recipe in the folder or among the shipped ones."""
    state = "which is a folder" if path.is_dir() else "which does not exist"
    files = {file.name: file for file in _list_yaml_files(path.parent)}
    stem = path.stem if path.suffix in _SUFFIXES else path.name
    starts = sorted((name for name in shipped_recipes() if name.startswith(stem)), key=len)
    similar = find_similar(path.name, files) or next(iter(starts), None) or find_similar(stem, shipped_recipes())
    if similar is None:
        advice = "list the shipped recipes with: selfsr recipes list"
    else:
        advice = f"did you mean {files.get(similar, similar)}?"
    return InputError(f"recipe: expected a YAML file or the name of a shipped recipe, got {path}, {state}; {advice}")


def _list_yaml_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    except OSError:  # missing or closed
        return []


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the shipped recipes by name."""
    folder = Path(__file__).parent / "shipped"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
