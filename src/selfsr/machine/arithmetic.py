"""How a GPU computes float32, and whether its results repeat bit for bit. These are global states of PyTorch."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

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
        matmul = torch.backends.cuda.matmul
        flags = (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32)
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
        fills = torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
        if self.deterministic:
            os.environ.setdefault(*_WORKSPACE)
        try:
            cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = (
                self.tf32 != "off",
                self.deterministic,
                self.benchmark and not self.deterministic,
                self.tf32 == "all",
            )
            _choose_algorithms(deterministic=self.deterministic, warn_only=False)
            # Filling is for finding reads of memory that was never written; it costs a launch for each tensor.
            torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
            yield
        finally:
            cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = flags
            _choose_algorithms(deterministic=was_deterministic, warn_only=warned_only)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # pyright: ignore[reportAttributeAccessIssue]


def _choose_algorithms(*, deterministic: bool, warn_only: bool) -> None:
    """Set PyTorch's mode if it changes, since the call imports PyTorch's compiler, which takes more than a second."""
    mode = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    if mode != (deterministic, warn_only):
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


# Data and scores do not depend on the device: images, networks and metrics compute in true float32.
TRUE_FLOAT32 = Arithmetic()
