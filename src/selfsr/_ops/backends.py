"""Choose the backend of an operator for a tensor, or explain why a backend cannot run."""

import functools
import importlib
import importlib.util
import os

import torch
from torch import Tensor

from selfsr.errors import InputError, shorten

_TRITON_DEVICES = ("cuda", "xpu")
# Earlier versions have no `tl.gather`, by which the kernels exchange values between lanes.
OLDEST_TRITON = (3, 3)
# Why a backend must not run though it seems to be able to.
_refused: dict[str, str] = {}


@functools.cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def why_not_cpu(*tensors: Tensor) -> str | None:
    """Return why the compiled CPU backend cannot run on these tensors, or None if it can."""
    if not _is_installed("numba"):
        return "numba is not installed (pip install numba)"
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"the tensor is on {tensor.device}, not on the CPU"
    return None


def why_not_triton(*tensors: Tensor) -> str | None:
    """Return why the Triton backend cannot run on these tensors, or None if it can.

    With `TRITON_INTERPRET=1` in the environment, Triton interprets its kernels on the CPU, which is slow and for tests.
    """
    if not _is_installed("triton"):
        return "triton is not installed (it comes with torch on Linux)"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for tensor in tensors:
        if tensor.device.type == "cpu" and interpreted:
            continue
        if tensor.device.type not in _TRITON_DEVICES:
            return f"the tensor is on {tensor.device}, not on a GPU that Triton supports"
        if tensor.is_cuda and torch.version.hip is None:
            capability = torch.cuda.get_device_capability(tensor.device)
            if capability < (7, 0):
                return f"{tensor.device} has compute capability {capability[0]}.{capability[1]}, Triton needs 7.0"
    return _why_triton_fails() or _refused.get("triton")


@functools.cache
def _why_triton_fails() -> str | None:
    """Return why the installed Triton is of no use to the kernels, or None."""
    try:
        version = importlib.import_module("triton").__version__
    except Exception as error:
        return f"triton cannot be imported ({shorten(str(error) or type(error).__name__)})"
    major, minor = (int(number) for number in version.split(".")[:2])
    if (major, minor) < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        return f"triton is {version}, and the kernels need {oldest}, which torch 2.7 has (pip install 'torch>=2.7')"
    return None


def refuse(name: str, reason: str) -> None:
    """Let a backend count as one that cannot run, until the process ends: its kernels do not compile here."""
    _refused[name] = reason


def why_not_eager(*tensors: Tensor) -> str | None:  # noqa: ARG001  (one signature for all)
    """Return None: plain torch runs on every device."""
    return None


WHY_NOT = {"cpu": why_not_cpu, "triton": why_not_triton, "eager": why_not_eager}


def choose(caller: str, requested: str, tensor: Tensor, candidates: tuple[str, ...] = tuple(WHY_NOT)) -> str:
    """Return the name of the backend to run on `tensor`.

    Args:
        caller: the public function, for error messages.
        requested: "auto" or one of `candidates`. "auto" is "cpu" for a tensor on the CPU and "triton" for one
            on a GPU, or "eager" if that backend cannot run.
        tensor: the tensor that the backend will process.
        candidates: the backends that the operator has.

    Raises:
        InputError: `requested` is not a candidate, or cannot run; the message has the reason.
    """
    if requested == "auto":
        natural = "cpu" if tensor.device.type == "cpu" else "triton"
        return natural if natural in candidates and WHY_NOT[natural](tensor) is None else "eager"
    if requested not in candidates:
        raise InputError(
            f"{caller}: backend must be one of {', '.join(('auto', *candidates))}, got {requested!r}; "
            "leave it at 'auto' if unsure."
        )
    reason = WHY_NOT[requested](tensor)
    if reason is not None:
        raise InputError(
            f"{caller}: backend {requested!r} cannot run because {reason}; pass backend='auto' or 'eager'."
        )
    return requested
