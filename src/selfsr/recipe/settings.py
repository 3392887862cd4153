"""Read the value of a setting such as `data.hr=photos` by the type of its option."""

import difflib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from selfsr.errors import InputError, describe_value, shorten
from selfsr.recipe.yaml12 import read_yaml

# A change of a document: `path=value` as text, or the path with a value that is read already.
Setting = str | tuple[str, Any]


def split_setting(setting: str, expected: str) -> tuple[str, str]:
    """Split `path=value` at the first equals sign.

    Raises:
        InputError: there is no path or no equals sign.
    """
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise InputError(f"--set: expected {expected}, got {describe_value(setting)}.")
    return path, text


def read_value(model: type[BaseModel], document: Any, path: str, text: str) -> Any:
    """Return the value of a setting.

    The text of an option that takes a path or a word is the value and is not parsed as YAML: `#2`, `no` and
    `2024` are folders. `null` removes an option that may be null. An option that takes a mapping takes YAML that
    begins with a brace. All other text is YAML.

    Args:
        model: the type of the document.
        document: the options so far; their `kind` selects among types.
        path: keys with dots between them.
        text: the value as it was written.

    Raises:
        InputError: the text is empty where a word is needed, or it is not valid YAML.
    """
    source = f"--set {shorten(path)}"
    found = list(_find_types(model, document, path.split(".")))
    members = [member for member in found if member is not type(None)]
    words, mappings = any(map(_is_text, members)), any(map(_is_mapping, members))
    if not members or not all(_is_text(member) or _is_mapping(member) for member in members):
        return read_yaml(text, source)
    if mappings and text.lstrip().startswith("{"):
        return read_yaml(text, source)
    if text == "null" and (type(None) in found or not words):
        return None
    if not text:
        null = "; write null for none" if type(None) in found else ""
        raise InputError(f"{source}: expected a value after the equals sign, got nothing{null}.")
    if "\0" in text:
        raise InputError(f"{source}: expected text without the character NUL, got {describe_value(text)}.")
    return text


def sets_option(settings: Sequence[Setting], key: str) -> bool:
    """Return whether one of the settings, among those written as text, gives the option at a key or those around it."""
    return any(f"{key}.".startswith(f"{path}.") for path in _list_paths(settings))


def find_setting_within(settings: Sequence[Setting], key: str) -> str | None:
    """Return the path of the first setting, among those written as text, of an option within the one at a key."""
    return next((path for path in _list_paths(settings) if path.startswith(f"{key}.")), None)


def _list_paths(settings: Sequence[Setting]) -> list[str]:
    return [split_setting(setting, "path=value")[0] for setting in settings if isinstance(setting, str)]


def check_removal(model: type[BaseModel], document: Any, node: dict[str, Any], path: str) -> None:
    """Check that `path=null` removes an entry that is there, such as a term of a method.

    Args:
        model: the type of the document.
        document: the options so far.
        node: the options that the last key of `path` belongs to.
        path: keys with dots between them.

    Raises:
        InputError: the entries have names, and none is called so.
    """
    *parents, name = path.split(".")
    named_entries = any(get_origin(member) is dict for member in _find_types(model, document, parents))
    if parents and named_entries and name not in node:
        guess = difflib.get_close_matches(name, node, 1)
        advice = f"did you mean {guess[0]}?" if guess else f"its entries are {', '.join(node) or 'none'}."
        raise InputError(
            f"--set {shorten(path)}=null: expected an entry of {'.'.join(parents)} to remove, "
            f"got {describe_value(name)}; {advice}"
        )


def _find_types(annotation: Any, value: Any, keys: list[str]) -> Iterator[Any]:
    """Yield the types that the option at `keys` may have, with unions taken apart."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        for member in _select_members(get_args(annotation), value):
            yield from _find_types(member, value, keys)
    elif not keys:
        yield annotation
    elif _is_model(annotation):
        if field := annotation.model_fields.get(keys[0]):
            yield from _find_types(field.annotation, _get(value, keys[0]), keys[1:])
    elif get_origin(annotation) is dict:
        yield from _find_types(get_args(annotation)[1], _get(value, keys[0]), keys[1:])


def _select_members(members: tuple[Any, ...], value: Any) -> list[Any]:
    """Return the members of a union whose `kind` is that of the value; all, if it has none or an unknown one."""
    kind = _get(value, "kind")
    selected = [member for member in members if isinstance(kind, str) and kind in _list_kinds(member)]
    return selected or list(members)


def _list_kinds(member: Any) -> tuple[Any, ...]:
    while get_origin(member) is Annotated:
        member = get_args(member)[0]
    if get_origin(member) in (Union, types.UnionType):
        return tuple(kind for inner in get_args(member) for kind in _list_kinds(inner))
    field = member.model_fields.get("kind") if _is_model(member) else None
    return get_args(field.annotation) if field else ()


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _is_text(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return all(isinstance(choice, str) for choice in get_args(annotation))
    return annotation in (str, Path)


def _is_mapping(annotation: Any) -> bool:
    return _is_model(annotation) or get_origin(annotation) is dict


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
