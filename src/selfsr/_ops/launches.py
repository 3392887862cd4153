"""Launch Triton kernels, or list the launches of a call to compile their kernels before it.

Compiling a kernel lasts up to half a minute, on one core. A training run therefore lists the launches of its
losses and compiles all kernels at once, in threads: most of the time is spent in LLVM and in NVIDIA's assembler, which
need no lock of Python.
"""

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsr.errors import describe_exception


class Launch(NamedTuple):
    """A kernel and the arguments of one launch, by name."""

    kernel: Any
    arguments: dict[str, Any]

    @property
    def key(self) -> tuple[Any, ...]:
        """What a compiled kernel depends on: constants, options, dtypes of tensors and types of numbers.

        A kernel that Triton also specializes on values, such as strides that are multiples of 16, is listed once.
        """
        parameters = inspect.signature(self.kernel.fn).parameters
        described = []
        for name, value in sorted(self.arguments.items()):
            is_constant = name not in parameters or parameters[name].annotation is not inspect.Parameter.empty
            kind = value if is_constant else value.dtype if isinstance(value, Tensor) else type(value)
            described.append((name, kind))
        return (id(self.kernel), *described)


_listed: ContextVar[list[Launch] | None] = ContextVar("_listed", default=None)


# How errors of the GPU begin, from PyTorch or Triton's driver, in contrast to those of a compiler.
_GPU_ERRORS = ("Triton Error [CUDA]", "CUDA error", "CUDA driver error", "CUDA out of memory")


class KernelFailed(RuntimeError):
    """A Triton kernel does not compile here; the message is the compiler's, in one line."""


def describe_kernel_failure(message: object) -> str:
    """Return why Triton cannot run, from the message of a compiler."""
    return f"its kernels do not compile here ({message})"


def launch(kernel: Any, programs: int, **arguments: Any) -> None:
    """Launch `programs` programs of a kernel; inside `list_launches`, only list the launch.

    Raises:
        KernelFailed: the kernel does not compile. Errors of the GPU are raised as they are.
    """
    listed = _listed.get()
    if listed is not None:
        listed.append(Launch(kernel, arguments))
        return
    try:
        kernel[(programs,)](**arguments)
    except Exception as error:  # whatever Triton, LLVM, the assembler or a missing C compiler raises
        if os.environ.get("TRITON_INTERPRET") == "1" or _is_of_gpu(error):
            raise
        raise KernelFailed(describe_exception(error)) from error


def _is_of_gpu(error: Exception) -> bool:
    """Return whether an error comes from running a kernel, not from compiling it."""
    return isinstance(error, torch.OutOfMemoryError) or str(error).startswith(_GPU_ERRORS)


@contextlib.contextmanager
def list_launches() -> Iterator[list[Launch]]:
    """Yield a list that gets the launches of this thread's calls, none of which runs."""
    launches: list[Launch] = []
    token = _listed.set(launches)
    try:
        yield launches
    finally:
        _listed.reset(token)


def drop_duplicates(launches: list[Launch]) -> list[Launch]:
    """Return one launch for each compiled kernel."""
    return list({launch.key: launch for launch in launches}.values())


def compile_kernels(
    launches: list[Launch], device: torch.device, threads: int, advance: Callable[[], None] = lambda: None
) -> None:
    """Compile the kernels of launches for a GPU, or load them from Triton's cache on the disk.

    Args:
        launches: one for each kernel, see `drop_duplicates`.
        device: the GPU.
        threads: number of threads.
        advance: called after each kernel, by the calling thread.

    Raises:
        Exception: what Triton raised for the first kernel that failed.
    """

    def compile_one(launch: Launch) -> None:
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            launch.kernel.warmup(grid=(1,), **launch.arguments)

    with ThreadPoolExecutor(max(1, threads), "selfsr-triton") as pool:
        futures = [pool.submit(compile_one, launch) for launch in launches]
        try:
            for future in as_completed(futures):
                future.result()
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
