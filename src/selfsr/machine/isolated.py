"""Run a function in a process of its own, so that a crash of a library is an error and not the end of the program."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch


class CrashError(Exception):
    """The process ended without a result; the message says by which signal or with which exit status."""


def run_isolated(function: Callable[[], bytes | str]) -> bytes | str:
    """Return the result of a function that runs in a copy of this process.

    The copy computes in one thread, because the threads of this process do not exist in it. It prints nothing on
    stdout, where PyTorch's exporter writes a graph when it fails. Where processes cannot be copied safely (Windows and
    macOS), the function runs in this process.

    Args:
        function: returns bytes or text; it must not raise, and must not use an accelerator.

    Raises:
        CrashError: the copy ended without a result.

    Example:
        >>> run_isolated(lambda: "done")
        'done'
    """
    if sys.platform in ("win32", "darwin"):
        return function()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(function, sender), daemon=True)
    with receiver:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a process with threads, see above
            process.start()
        sender.close()
        try:
            return receiver.recv()
        except EOFError:
            process.join()
            raise CrashError(_describe_end(process.exitcode)) from None
        finally:
            process.join()


def _send_result(function: Callable[[], bytes | str], sender: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(1)
    sender.send(function())


def _describe_end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
