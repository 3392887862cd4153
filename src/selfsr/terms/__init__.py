"""The losses of a recipe; each file has the name of its module in `losses/`."""

from selfsr.terms.union import AnyTerm, Term

__all__ = ["AnyTerm", "Term"]
