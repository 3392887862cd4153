"""Run numba kernels on the CPU in torch's own threads; compile them, and add what numba lacks.

numba's own thread layers are not used, since they differ between machines: one ends the process if two Python threads
call it, another if a process forks after its use. Here each thread of a team calls the kernel once. The kernel releases
the GIL and takes its share of the work from a counter. Decision and measurements: docs/adr/0001-torch-threads.md.

A kernel is two functions in one file, since numba's disk cache looks only at the age of a kernel's file: the work,
decorated with `helper` like all functions that it calls, and the function that `run` compiles, of the form

    def name(team, *arguments):
        return share(team, _work, arguments)
"""

import ctypes
import functools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# "contract" allows a * b + c to be one instruction; it changes neither NaN, infinities nor the order of sums.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
# Functions that only kernels call are compiled without an entry for Python.
_WITHOUT_ENTRY: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
helper = numba.njit(**OPTIONS, **_WITHOUT_ENTRY)

_forked = threading.Event()


def run(kernel: Callable[..., Any], tasks: int, *arguments: Any) -> None:
    """Compile `kernel` and call its work with `(counter, *arguments)` in as many threads as torch uses.

    Each thread takes task numbers below `tasks` with `next_task(counter)` until none is left. A task's computation
    and its output must depend only on its number; then results do not depend on the threads.

    Raises:
        MemoryError: the kernel could not allocate its work memory.
    """
    if tasks == 0:
        return
    _watch_forks()
    threads = torch.get_num_threads()
    parallel = 0 if threads == 1 or _forked.is_set() else _openmp()
    arguments = ((parallel, threads), np.zeros(1, np.int64), *arguments)
    compiled = _compile(kernel, _describe(arguments))
    helpers = [_pool().submit(compiled, *arguments) for _ in range(0 if parallel else min(threads, tasks) - 1)]
    failed = compiled(*arguments)
    for helper in helpers:
        # A helper that is still queued behind another caller's work is no longer needed.
        if not helper.cancel():
            failed |= helper.result()
    if failed:
        raise MemoryError(f"{kernel.__name__}: could not allocate the work memory of this kernel.")


@functools.cache
def _openmp() -> int:
    """Return the address of the start function of torch's OpenMP threads, or 0 if there is none.

    After a parallel loop these threads wait at full speed for some milliseconds. A kernel can use them immediately,
    while threads of its own would compete with them for the cores.
    """
    try:
        # The search includes the libraries that torch is linked with. Only the OpenMP of GCC and Intel have this name.
        function = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Return the thread pool that is used if torch's threads are not available."""
    return ThreadPoolExecutor(max(os.cpu_count() or 1, torch.get_num_threads()), "selfsr-cpu")


@functools.cache
def _watch_forks() -> None:
    """Let a forked process make its own pool: the threads of OpenMP exist only in the parent."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked.set)
        os.register_at_fork(after_in_child=_pool.cache_clear)


def _describe(value: Any) -> Any:
    """Return the key of a specialization: dtype, axes and layout of an array, or the type of a number."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, "C" if value.flags.c_contiguous else "A", not value.flags.writeable
    return tuple(map(_describe, value)) if isinstance(value, tuple) else type(value)


def _numba_type(kind: Any) -> Any:
    """Return numba's type of a `_describe` result; `numba.typeof` of an array takes ten times as long."""
    if not isinstance(kind, tuple):
        return numba.typeof(kind())
    if isinstance(kind[0], np.dtype):
        dtype, axes, layout, readonly = kind
        return types.Array(numba.from_dtype(dtype), axes, layout, readonly)
    return types.BaseTuple.from_types([_numba_type(part) for part in kind])


@functools.cache
def _compile(kernel: Callable[..., Any], kinds: tuple[Any, ...]) -> Any:
    """Compile a kernel, or load it from numba's cache.

    The cache is next to the kernel's file, or in the user's cache if that folder is read-only. If no folder is
    writable, the disk is full or a file is damaged, the kernel is compiled for this process only. The cache follows
    changes of the kernel's own file only: after an edit of this file, touch the files of the kernels.
    """
    signature = (_numba_type(kinds[0]), _numba_type(kinds[1:]))
    compiled = numba.njit(**OPTIONS)(kernel)
    try:
        compiled.enable_caching()
        compiled.compile(signature)
    except Exception:
        # Damaged files raise any kind of error. An error of the kernel itself is raised again by the next line.
        if not compiled.signatures:
            compiled = numba.njit(**OPTIONS)(kernel)
            compiled.compile(signature)
    return compiled


def _share(_typing: Any, team: Any, work: Any, arguments: Any) -> Any:
    """Call `work(*arguments)` from each thread of `team`.

    `team` is (address of the function that starts the threads or 0, number of threads). The compiled function
    returns whether a thread ran out of memory, the only possible error.
    """
    call = work.get_call_type(_typing, tuple(arguments), {})
    start = ir.FunctionType(ir.VoidType(), (cgutils.voidptr_t, cgutils.voidptr_t, cgutils.int32_t, cgutils.int32_t))

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        parallel, threads = cgutils.unpack_tuple(builder, values[0])
        # The threads share the arguments and a flag whether one failed.
        shared = cgutils.alloca_once(builder, ir.LiteralStructType((values[2].type, cgutils.bool_t)))
        builder.store(values[2], cgutils.gep_inbounds(builder, shared, 0, 0))
        failed = cgutils.gep_inbounds(builder, shared, 0, 1)
        builder.store(cgutils.false_bit, failed)
        name = builder.module.get_unique_name("share")
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), (cgutils.voidptr_t,)), name)
        function.linkage = "internal"
        work_on(context, ir.IRBuilder(function.append_basic_block()), shared.type)
        data = builder.bitcast(shared, cgutils.voidptr_t)
        with builder.if_else(cgutils.is_null(builder, parallel)) as (single, together):
            with single:
                builder.call(function, (data,))
            with together:
                address = builder.bitcast(function, cgutils.voidptr_t)
                count, flags = builder.trunc(threads, cgutils.int32_t), cgutils.int32_t(0)
                builder.call(builder.inttoptr(parallel, start.as_pointer()), (address, data, count, flags))
        return builder.load(failed)

    def work_on(context: Any, builder: Any, shared_type: Any) -> None:
        shared = builder.bitcast(builder.function.args[0], shared_type)
        values = cgutils.unpack_tuple(builder, builder.load(cgutils.gep_inbounds(builder, shared, 0, 0)))
        compiled = work.dispatcher.get_compile_result(call)
        context.active_code_library.add_linking_library(compiled.library)
        status, _ = context.call_internal_no_propagate(builder, compiled.fndesc, call, values)
        with builder.if_then(status.is_error):
            builder.store(cgutils.true_bit, cgutils.gep_inbounds(builder, shared, 0, 1))
        builder.ret_void()

    return types.boolean(team, work, arguments), generate


# numba calls this with the three arguments only.
share: Any = intrinsic(_share)


def _fetch_and_add(_typing, counter):
    """Return the next number of `counter` `[1]`, int64, each number to one thread only."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


# numba calls this with the counter only.
next_task: Any = intrinsic(_fetch_and_add)


def exp(value):
    """Return e to the power of a value <= 0 or NaN; in float32 a loop over it is vectorized."""
    return math.exp(value)


@overload(exp)
def _exp_overload(value):
    if value != types.float32:
        return lambda value: math.exp(value)

    # Without Intel's SVML numba calls the C library for each value, which keeps a loop from being vectorized.
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
