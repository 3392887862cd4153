"""Turn a validation error of a recipe into one sentence: path, value, what was expected, the nearest known key."""

import difflib
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """Return what is wrong with a document that `model` refused, first problem first."""
    problems = error.errors(include_url=False)
    # An unknown key is most often the misspelled form of a missing one: name it first.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first = _explain(problems[0], model)
    others = len(problems) - 1
    return first + (f" ({others} more {'problem' if others == 1 else 'problems'} after this one.)" if others else "")


def _explain(problem: Any, model: type[BaseModel]) -> str:
    owner, path = _follow(problem["loc"], model)
    place = ".".join(map(str, path)) or model.__name__.lower()
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{place}: unknown key; {_nearest(str(path[-1]), owner)}."
    if kind == "missing":
        return f"{place}: missing; add it, it has no default."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        known = str(context.get("expected_tags", "")).replace("'", "")
        tag = context.get("tag")
        guess = difflib.get_close_matches(str(tag), known.split(", "), 1)
        hint = f"; did you mean {guess[0]}?" if guess else "."
        came = f"got {tag!r}" if tag is not None else "got none"
        return f"{place}.kind: expected one of {known}, {came}{hint}"
    if kind == "value_error":
        said = str(context["error"]).rstrip(".")
        return f"{place}: {said}" + ("" if said.endswith("?") else ".")
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{place}: {message}, got {problem['input']!r}."


def _nearest(key: str, owner: type[BaseModel] | None) -> str:
    known = sorted(owner.model_fields) if owner else []
    guess = difflib.get_close_matches(key, known, 1)
    return f"did you mean {guess[0]}" if guess else f"known keys are {', '.join(known)}"


def _follow(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[type[BaseModel] | None, list]:
    """Walk an error's location; return the model it ends in and the path as the user wrote it.

    Pydantic puts the tag of a union into the location (`network.edsr.blocks`); the user never wrote it.
    """
    annotation: Any = model
    owner: type[BaseModel] | None = model
    path: list[int | str] = []
    for part in loc:
        annotation = _plain(annotation)
        members = _members(annotation)
        tagged = [member for member in members if part in _tags(member)]
        if tagged and not (isinstance(annotation, type) and part in getattr(annotation, "model_fields", {})):
            annotation = _plain(tagged[0])
            owner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else owner
            continue
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            owner = annotation
            field = annotation.model_fields.get(str(part))
            annotation = field.annotation if field else None
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            inner = [member for member in members if member is not type(None)]
            if isinstance(part, str) and part.startswith(("literal[", "constrained", "function-")):
                continue
            if part in ("one", "several") and members:  # the tags of what may be one value or one for each scale
                annotation = next(m for m in members if part in _marks(m))
                continue
            annotation = inner[0] if inner else None
        path.append(part)
    return owner, path


def _plain(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = [m for m in _members(annotation) if m is not type(None)]
    return _plain(members[0]) if len(members) == 1 and _members(annotation) else annotation


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for m in get_args(annotation)]
    return []


def _marks(member: Any) -> list[str]:
    return [mark.tag for mark in getattr(member, "__metadata__", ()) if isinstance(mark, Tag)]


def _tags(member: Any) -> tuple[Any, ...]:
    while get_origin(member) is Annotated:
        member, *notes = get_args(member)
        named = tuple(note.tag for note in notes if isinstance(note, Tag))
        if named:
            return named
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return ()
    kind = member.model_fields.get("kind")
    return get_args(kind.annotation) if kind and get_origin(kind.annotation) is Literal else ()
