"""Running numba kernels on the CPU: threads, compilation and its cache, and what numba itself lacks.

numba's own thread layers are not used: which one is there depends on the machine, one ends the process when two
Python threads call it, another when a process forks after its use. Here a kernel gives up the GIL, is called once by
each thread of a pool, and takes its share of the work from a counter.
"""

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

# "contract" lets a * b + c be one instruction; it leaves NaN, infinities and the order of sums alone.
OPTIONS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}


def run(kernel: Callable[..., None], tasks: int, *arguments: Any) -> None:
    """Compile the function `kernel` and call it, with `(counter, *arguments)`, from as many threads as torch uses.

    It takes task numbers below `tasks` with `next_task(counter)` until there are none left. What a task
    computes and where it writes must depend on its number alone; then results do not depend on the threads.
    Functions that it calls are decorated with `numba.njit(**OPTIONS)`, the kernel itself is not.
    """
    if tasks == 0:
        return
    arguments = (np.zeros(1, np.int64), *arguments)
    compiled = _compile(kernel, tuple(numba.typeof(argument) for argument in arguments))
    helpers = [_pool().submit(compiled, *arguments) for _ in range(min(torch.get_num_threads(), tasks) - 1)]
    compiled(*arguments)
    for helper in helpers:
        # One that is still queued behind another caller's work is not needed any more.
        if not helper.cancel():
            helper.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    if hasattr(os, "register_at_fork"):
        # A forked process has none of these threads and makes its own.
        os.register_at_fork(after_in_child=_pool.cache_clear)
    return ThreadPoolExecutor(max(os.cpu_count() or 1, torch.get_num_threads()), "selfsr-cpu")


@functools.cache
def _compile(kernel: Callable[..., None], signature: tuple[Any, ...]) -> Any:
    """Compile a kernel, or load it from numba's cache: beside its file or, where that is read-only, the user's.

    Without a place for the cache, or with a full disk or a damaged file, it is compiled for this process alone. The
    cache follows changes of the kernel's own file; who edits `next_task` or `exp` here touches those of the kernels.
    """
    compiled = numba.njit(**OPTIONS)(kernel)
    try:
        compiled.enable_caching()
        compiled.compile(signature)
    except Exception:
        # Damaged files raise all sorts of errors. One that is the kernel's own is raised again by compiling anew.
        if not compiled.signatures:
            compiled = numba.njit(**OPTIONS)(kernel)
            compiled.compile(signature)
    return compiled


def _fetch_and_add(_typing, counter):
    """Return the next number of `counter` `[1]`, int64, to one thread alone."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


# numba calls this with the counter alone.
next_task: Any = intrinsic(_fetch_and_add)


def exp(value):
    """Return e to the power of a value <= 0 or NaN; in float32 a loop over it is vectorised."""
    return math.exp(value)


@overload(exp)
def _exp_overload(value):
    if value != types.float32:
        return lambda value: math.exp(value)

    # Without Intel's SVML numba calls the C library for each value, which keeps a loop from being vectorised.
    # exp(v) = 2^n exp(r), r = v - n ln 2; exp(r) = 1 + r + r^2 p(r), p fitted to |r| <= ln 2 / 2 (error 3e-9).
    # Adding 1.5 * 2^23 rounds to an integer and leaves n in the low bits, from where a shift makes it the exponent
    # of 2^n: no conversion whose result is undefined for NaN. Below -87 the result would be denormal, and is 0.
    def exp_float32(value):
        magic = np.float32(12582912.0)
        bounded = np.float32(-87.0) if value < np.float32(-87.0) else value
        shifted = bounded * np.float32(1.4426950408889634) + magic
        n = shifted - magic
        r = bounded - n * np.float32(0.693359375)
        r = r - n * np.float32(-2.1219444005469058e-4)
        p = np.float32(0.0013814598365538243)
        p = p * r + np.float32(0.008368716898082777)
        p = p * r + np.float32(0.041668388051125174)
        p = p * r + np.float32(0.16666520631511755)
        p = p * r + np.float32(0.49999993447767643)
        power = np.int32((np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)).view(np.float32)
        result = (p * (r * r) + r + np.float32(1.0)) * power
        return np.float32(0.0) if value < np.float32(-87.0) else result

    return exp_float32
