"""The base of everything that a recipe spells out: frozen, typed, and strict about unknown keys."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Spec(BaseModel):
    """A typed part of a recipe. Unknown keys are errors; a spec never changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _without_nulls(parts: Any) -> Any:
    return {name: part for name, part in parts.items() if part is not None} if isinstance(parts, dict) else parts


# For parts that have names of their own: null leaves one out, so that a recipe's can be taken away by a setting.
NullLeavesOut = BeforeValidator(_without_nulls)
