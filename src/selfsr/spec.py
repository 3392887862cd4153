"""The base of everything that a recipe spells out: frozen, typed, and strict about unknown keys."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A typed part of a recipe. Unknown keys are errors; a spec never changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
