"""The losses of a recipe: one file for each of `losses/`."""

from selfsr.terms.union import AnyTerm, Term

__all__ = ["AnyTerm", "Term"]
