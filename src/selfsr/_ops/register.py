"""Register functions as torch operators, one opaque node for torch.compile and torch.export.

It replaces `torch.library.custom_op`, whose first call imports torch's compiler. That takes more than a second and 150
MiB in a process that compiles nothing (docs/adr/0003-operator-registration.md).
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from selfsr._ops.dispatch import replace_failing_kernels


@functools.cache
def _library() -> torch.library.Library:
    return torch.library.Library("selfsr", "FRAGMENT")


def operator(name: str, *, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Register a function as the operator `selfsr::name`; the function must not change its arguments.

    Args:
        name: the operator's name under torch.ops.selfsr.
        fake: a function of the same arguments that returns empty results of the right shape, dtype and layout.

    Returns:
        A decorator that replaces the function by the operator. The annotations of the function are the schema.
    """

    def register(function: Callable[..., Any]) -> Any:
        library = _library()
        library.define(
            name + torch.library.infer_schema(function, mutates_args=()), tags=(torch.Tag.pt2_compliant_tag,)
        )
        library.impl(name, _hide_from_dynamo(replace_failing_kernels(function)), "CompositeExplicitAutograd")
        torch.library.register_fake(f"selfsr::{name}", fake, lib=library)
        return getattr(torch.ops.selfsr, name).default

    return register


def register_gradient(name: str, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """Register an operator's gradient; arguments as for `torch.library.register_autograd`."""
    torch.library.register_autograd(f"selfsr::{name}", backward, setup_context=setup_context, lib=_library())


def _hide_from_dynamo(function: Callable[..., Any]) -> Callable[..., Any]:
    """Prevent torch.compile from tracing into `function`, without importing the compiler."""
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*arguments)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*arguments)

    return call
