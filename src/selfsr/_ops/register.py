"""Registering functions as operators of torch, so that torch.compile and torch.export see one opaque node each.

As `torch.library.custom_op`, without what that imports at the first call: torch's compiler, more than a second and
150 MiB in a process that compiles nothing.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch


@functools.cache
def _library() -> torch.library.Library:
    return torch.library.Library("selfsr", "FRAGMENT")


def operator(name: str, *, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make the operator `selfsr::name` of a function that changes none of its arguments.

    Args:
        name: under torch.ops.selfsr.
        fake: takes the same arguments and returns empty results of the right shape, dtype and layout.

    Returns:
        A decorator that gives the operator for the function, whose annotations are its schema.
    """

    def register(function: Callable[..., Any]) -> Any:
        library = _library()
        library.define(
            name + torch.library.infer_schema(function, mutates_args=()), tags=(torch.Tag.pt2_compliant_tag,)
        )
        library.impl(name, _hidden_from_dynamo(function), "CompositeExplicitAutograd")
        torch.library.register_fake(f"selfsr::{name}", fake, lib=library)
        return getattr(torch.ops.selfsr, name).default

    return register


def register_gradient(name: str, backward: Callable[..., Any], keep: Callable[..., None]) -> None:
    """Give an operator its gradient; the arguments are those of `torch.library.register_autograd`."""
    torch.library.register_autograd(f"selfsr::{name}", backward, setup_context=keep, lib=_library())


def _hidden_from_dynamo(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep torch.compile from looking into a call that it meets outside of its graphs; it can't before it is loaded."""
    hidden: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*arguments)
        if not hidden:
            hidden.append(torch.compiler.disable(function))
        return hidden[0](*arguments)

    return call
