"""Describe a validation error of a recipe in one sentence: key, expectation, value, and the nearest known key."""

import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from selfsr.errors import describe_value, shorten, suggest

_Place = tuple[type[BaseModel] | None, list[int | str], Any]
# What was expected, by pydantic's types of problems.
_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping, key: value",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_type": "an integer",
    "model_attributes_type": "a mapping of options, key: value",
    "model_type": "a mapping of options, key: value",
    "path_type": "a path",
    "string_type": "text",
}
_LONGEST = 1500  # characters of a sentence, of which a list of all known layers has the most


def describe_error(error: ValidationError, model: type[BaseModel]) -> str:
    """Return one sentence about the first problem of a document that `model` refused, and the number of others."""
    found = error.errors(include_url=False)
    problems = [problem for problem in found if not _follows(problem, found)]
    # An unknown key is often the misspelled form of a missing one, so it comes first.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    sentence = _describe_problem(problems[0], model)
    sentence = re.sub(r"\S{200,}", lambda match: f"{match[0][:80]}...{match[0][-20:]}", sentence)
    sentence = shorten(sentence, _LONGEST)
    more = len(problems) - 1
    return sentence + (f" ({more} more {'problem' if more == 1 else 'problems'} after this one.)" if more else "")


def _follows(problem: Any, others: Sequence[Any]) -> bool:
    """Return whether a list is too short only because its wrong entries do not count."""
    place, places = problem["loc"], [other["loc"] for other in others]
    return problem["type"] == "too_short" and any(loc[: len(place)] == place and loc != place for loc in places)


def _describe_problem(problem: Any, model: type[BaseModel]) -> str:
    owner, path, annotation = _resolve(problem["loc"], model)
    if path and path[-1] == "[key]":  # a wrong key of a mapping with chosen keys: the value is the key itself
        path = path[:-2]
    key = shorten(".".join(map(str, path))) or model.__name__.lower()
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        known = sorted(owner.model_fields) if owner else []
        return f"{key}: unknown key{suggest(path[-1], known, 'known keys are ' + ', '.join(known))}"
    if kind == "missing":
        return f"{key}: missing; add it, it has no default."
    if kind == "union_tag_not_found" and "expected_tags" not in context:
        kinds = [kind for member in _union_members(_unwrap(annotation)) for kind in _tags(member)]
        return f"{key}.kind: missing; add one of {', '.join(map(str, kinds))}."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"{key}.kind: {_describe_kind(context)}"
    if kind == "value_error":
        message = str(context["error"]).rstrip(".")
        return f"{key}: {message}" + ("" if message.endswith("?") else ".")
    if kind == "literal_error":
        return f"{key}: {_describe_choice(str(context['expected']), problem['input'])}"
    if kind in ("list_type", "tuple_type"):
        return f"{key}: expected a list, such as [{_show(problem['input'])}], got {describe_value(problem['input'])}."
    if kind == "too_short":
        least = context["min_length"]
        entries = "entry" if least == 1 else "entries"
        return f"{key}: expected at least {least} {entries}, got {context['actual_length']}; add one."
    message = _describe_expectation(kind, problem["msg"])
    # A folder or a name such as 2024 is a number in YAML.
    quotable = kind in ("path_type", "string_type") and isinstance(problem["input"], int | float)
    advice = "; put it in quotes" if quotable else ""
    return f"{key}: {message}, got {describe_value(problem['input'])}{advice}."


def _describe_expectation(kind: str, message: str) -> str:
    """Return what was expected, from the type and the message of a problem."""
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}"
    limit = re.fullmatch(r"Input should be ((?:greater|less) than .*)", message)
    if limit:
        return f"expected a number {limit[1]}"
    return message[0].lower() + message[1:]


def _describe_kind(context: dict[str, Any]) -> str:
    """Return a sentence about a `kind` that is unknown or missing."""
    kinds = str(context.get("expected_tags", "")).replace("'", "")
    kind = context.get("tag")
    advice = suggest(kind, kinds.split(", "))
    return f"expected one of {kinds}, got {describe_value(kind) if kind is not None else 'none'}{advice}"


def _show(value: Any) -> str:
    """Return a word as it stands in a recipe; something else is shown by dots."""
    return value if isinstance(value, str) and 0 < len(value) < 40 else "..."


def _describe_choice(expected: str, value: Any) -> str:
    """Return a sentence about a value that is none of the allowed ones, `'a', 'b' or 'c'`."""
    choices = re.findall(r"'([^']*)'", expected)
    advice = suggest(value, choices if isinstance(value, str) else ())
    listed = ", ".join(choices) or expected
    one_of = "one of " if len(choices) > 1 else ""
    return f"expected {one_of}{listed}, got {describe_value(value)}{advice}"


def _resolve(location: tuple[int | str, ...], model: type[BaseModel]) -> _Place:
    """Follow the location of an error through the types of a model.

    Pydantic adds the tags of unions to a location, such as `edsr` in `network.edsr.blocks`. They are removed.

    Args:
        location: keys, indices and tags, from the outside to the inside.
        model: the type of the document.

    Returns:
        The innermost model on the way, the location as it is written in the document, and the type at it.
    """
    annotation: Any = model
    owner: type[BaseModel] | None = model
    path: list[int | str] = []
    for element in location:
        annotation = _unwrap(annotation)
        members = _union_members(annotation)
        tagged = [member for member in members if element in _tags(member)]
        if tagged and not (_is_model(annotation) and element in annotation.model_fields):
            annotation = _unwrap(tagged[0])
            owner = annotation if _is_model(annotation) else owner
            continue
        if _is_model(annotation):
            owner = annotation
            field = annotation.model_fields.get(str(element))
            annotation = field.annotation if field else None
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif isinstance(element, int) and get_origin(annotation) in (list, tuple):
            annotation = get_args(annotation)[0]
            owner = _unwrap(annotation) if _is_model(_unwrap(annotation)) else owner
        else:
            if isinstance(element, str) and element.startswith(("literal[", "constrained", "function-")):
                continue
            if element in ("one", "several") and members:  # tags of an option with one value, or one for each scale
                annotation = next(member for member in members if element in _own_tags(member))
                continue
            inner = [member for member in members if member is not type(None)]
            annotation = inner[0] if inner else None
        path.append(element)
    return owner, path, annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unwrap(annotation: Any) -> Any:
    """Remove `Annotated` and `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = [member for member in _union_members(annotation) if member is not type(None)]
    return _unwrap(members[0]) if len(members) == 1 else annotation


def _union_members(annotation: Any) -> list[Any]:
    return list(get_args(annotation)) if get_origin(annotation) in (Union, types.UnionType) else []


def _own_tags(member: Any) -> list[str]:
    return [note.tag for note in getattr(member, "__metadata__", ()) if isinstance(note, Tag)]


def _tags(member: Any) -> tuple[Any, ...]:
    """Return the tags of a member of a union: those written with `Tag`, else the values of its `kind`."""
    while get_origin(member) is Annotated:
        member, *notes = get_args(member)
        tags = tuple(note.tag for note in notes if isinstance(note, Tag))
        if tags:
            return tags
    if not _is_model(member):
        return ()
    kind = member.model_fields.get("kind")
    return get_args(kind.annotation) if kind and get_origin(kind.annotation) is Literal else ()
