"""How a GPU computes float32, and whether its results repeat bit for bit. These are global states of PyTorch."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

T = TypeVar("T")
Tf32 = Literal["off", "convolutions", "all"]

# cuBLAS repeats its results only with a workspace of fixed size; it reads the variable at its first use.
_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of a GPU inside `use`; a CPU always computes true float32 and repeats its results.

    Attributes:
        tf32: where float32 may be rounded to TF32, 10 bits of mantissa instead of 23: "off"; "convolutions", PyTorch's
            default; "all", convolutions and matrix products.
        deterministic: choose only algorithms that repeat bit for bit; an operator without one raises a RuntimeError.
        benchmark: let cuDNN time its algorithms at each new size of a convolution, and take the fastest one.
    """

    tf32: Tf32 = "off"
    deterministic: bool = False
    benchmark: bool = False

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Compute in this way inside the context, and as before after it.

        Example:
            >>> with Arithmetic(tf32="all").use():
            ...     torch.backends.cuda.matmul.allow_tf32
            True
        """
        cudnn: Any = torch.backends.cudnn
        flags = (cudnn.deterministic, cudnn.benchmark)
        restore_tf32 = _save_tf32()
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
        fills = torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
        if self.deterministic:
            os.environ.setdefault(*_WORKSPACE)
        try:
            _set_tf32(self.tf32)
            cudnn.deterministic, cudnn.benchmark = self.deterministic, self.benchmark and not self.deterministic
            _choose_algorithms(deterministic=self.deterministic, warn_only=False)
            # Filling is for finding reads of memory that was never written; it costs a launch for each tensor.
            torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = flags
            restore_tf32()
            _choose_algorithms(deterministic=was_deterministic, warn_only=warned_only)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # pyright: ignore[reportAttributeAccessIssue]


def _set_tf32(tf32: Tf32) -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.allow_tf32 = tf32 != "off"
    if tf32 == "off":
        # Without it, a program's `torch.backends.fp32_precision = "tf32"` would still hold for convolutions.
        for operator in _cudnn_operators():
            operator.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("high" if tf32 == "all" else "highest")


def _save_tf32() -> Callable[[], None]:
    """Return a function that restores the present state.

    PyTorch refuses to read its older flags after a program has set `fp32_precision`, which came with 2.9, otherwise.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    precisions = [operator.fp32_precision for operator in _cudnn_operators()]
    convolutions = _read_or_none(lambda: cudnn.allow_tf32)
    products = _read_or_none(torch.get_float32_matmul_precision)
    product_precision = None if products is not None else matmul.fp32_precision

    def restore() -> None:
        cudnn.allow_tf32 = bool(convolutions)
        for operator, precision in zip(_cudnn_operators(), precisions, strict=True):
            operator.fp32_precision = precision
        if products is not None:
            torch.set_float32_matmul_precision(products)
        else:
            matmul.fp32_precision = product_precision

    return restore


def _cudnn_operators() -> list[Any]:
    """Return the operators of cuDNN with a precision of their own; PyTorch before 2.9 has none."""
    cudnn: Any = torch.backends.cudnn
    found = [getattr(cudnn, name, None) for name in ("conv", "rnn")]
    return [operator for operator in found if hasattr(operator, "fp32_precision")]


def _read_or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except RuntimeError:
        return None


def _choose_algorithms(*, deterministic: bool, warn_only: bool) -> None:
    """Set PyTorch's mode if it changes, since the call imports PyTorch's compiler, which takes more than a second."""
    mode = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    if mode != (deterministic, warn_only):
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


# Data and scores do not depend on the device: images, networks and metrics compute in true float32.
TRUE_FLOAT32 = Arithmetic()
