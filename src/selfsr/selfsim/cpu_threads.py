"""How the kernels of the compiled CPU backend are compiled, cached on disk and shared among threads.

A kernel is called once by each thread and takes tasks from a counter until there are none, without the GIL. What
a task computes, where it writes and in which order it adds must depend on the task alone: then the result has the
same bits whatever the number of threads.

numba's own thread layers are not used. Which one is there depends on the machine, one of them crashes when two
Python threads call it and another when a process forks after its use; their loops also take longer to compile.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# "contract" allows a*b+c to be one instruction; it leaves NaN, infinities and the order of sums alone.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}


def _next_task(_typing: Any, counter: Any) -> Any:
    """Return the next number of `counter`, int64 `[1]`, to one thread alone."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


# numba's disk cache looks at the file of a kernel alone: who edits this function must touch those files too.
next_task: Any = intrinsic(_next_task)


@functools.cache
def _compiled(kernel: Any, signature: tuple[Any, ...]) -> Any:
    """Compile `kernel` for argument types, or load it from numba's cache on disk, where there is one.

    That cache is beside this file or, if that place is read-only, in the user's cache folder; without either,
    or with a full disk or a damaged file, the kernel is compiled for this process alone.
    """
    cached = numba.njit(**OPTIONS)(kernel.py_func)
    try:
        cached.enable_caching()
        cached.compile(signature)
    except Exception:
        # A damaged file raises anything. What is wrong with the kernel itself, the next line raises again; what
        # only could not be written is compiled already.
        if not cached.signatures:
            kernel.compile(signature)
            return kernel
    return cached


def run(kernel: Any, tasks: int, *arguments: Any) -> None:
    """Call a kernel from as many threads as torch uses, and wait for all of them."""
    if tasks == 0:
        return
    counter = np.zeros(1, np.int64)
    arguments = (counter, *arguments)
    compiled = _compiled(kernel, tuple(numba.typeof(argument) for argument in arguments))
    helpers = min(torch.get_num_threads(), tasks) - 1
    waiting = [_pool().submit(compiled, *arguments) for _ in range(helpers)]
    compiled(*arguments)
    for helper in waiting:
        # One that another caller's work has kept waiting is not needed any more.
        if not helper.cancel():
            helper.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Make the helper threads."""
    if hasattr(os, "register_at_fork"):
        # A forked process has none of its parent's threads, so it makes its own.
        os.register_at_fork(after_in_child=_pool.cache_clear)
    return ThreadPoolExecutor(max(os.cpu_count() or 1, torch.get_num_threads()), "selfsr-cpu")
