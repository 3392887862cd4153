"""Which implementation of an operator can run on a tensor, and why another one cannot."""

import functools
import importlib.util
import os

import torch
from torch import Tensor

from selfsr.errors import InputError

_TRITON_DEVICES = ("cuda", "xpu")


@functools.cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def why_not_cpu(*tensors: Tensor) -> str | None:
    """Say why the compiled CPU backend cannot take these tensors, or None if it can."""
    if not _is_installed("numba"):
        return "numba is not installed (pip install numba)"
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"the tensor is on {tensor.device}, not on the CPU"
    return None


def why_not_triton(*tensors: Tensor) -> str | None:
    """Say why the Triton backend cannot take these tensors, or None if it can.

    With `TRITON_INTERPRET=1` in the environment Triton interprets its kernels on the CPU, slowly, for tests.
    """
    if not _is_installed("triton"):
        return "triton is not installed (it comes with torch on Linux)"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for tensor in tensors:
        if tensor.device.type == "cpu" and interpreted:
            continue
        if tensor.device.type not in _TRITON_DEVICES:
            return f"the tensor is on {tensor.device}, not on a GPU that Triton drives"
        if tensor.is_cuda and torch.version.hip is None:
            capability = torch.cuda.get_device_capability(tensor.device)
            if capability < (7, 0):
                return f"{tensor.device} has compute capability {capability[0]}.{capability[1]}, Triton needs 7.0"
    return None


def why_not_eager(*tensors: Tensor) -> str | None:  # noqa: ARG001  (one signature for all)
    """Return None: plain torch runs wherever the tensors are."""
    return None


WHY_NOT = {"cpu": why_not_cpu, "triton": why_not_triton, "eager": why_not_eager}


def choose(where: str, requested: str, tensor: Tensor, candidates: tuple[str, ...] = tuple(WHY_NOT)) -> str:
    """Return the name of the backend to run on `tensor`.

    Args:
        where: the function on whose behalf errors speak.
        requested: "auto" or one of `candidates`. "auto" takes "cpu" for a tensor on the CPU, "triton" for one
            on a GPU, and "eager" where that one cannot run.
        tensor: the tensor that the backend will be given.
        candidates: the backends that the operator has.

    Raises:
        InputError: if `requested` is no candidate, or cannot run; the sentence gives the reason.
    """
    if requested == "auto":
        natural = "cpu" if tensor.device.type == "cpu" else "triton"
        return natural if natural in candidates and WHY_NOT[natural](tensor) is None else "eager"
    if requested not in candidates:
        raise InputError(
            f"{where}: backend must be one of {', '.join(('auto', *candidates))}, got {requested!r}; "
            "leave it at 'auto' if unsure."
        )
    reason = WHY_NOT[requested](tensor)
    if reason is not None:
        raise InputError(
            f"{where}: backend {requested!r} cannot run here because {reason}; use backend='auto' or 'eager'."
        )
    return requested
