"""The error of a process that another process of the run has left alone."""

import contextlib
import os
import re
from collections.abc import Iterator

from torch import distributed

from selfsr.errors import shorten
from selfsr.machine.distributed import process_count, process_rank

# An error of gloo begins with the place in its source, and ends with advice to the authors of programs.
_GLOO_ERROR = re.compile(r"\[\S*/gloo/\S+\]\s*(.*?)(?:\. This is typically caused by .*)?$", re.DOTALL)


class LostProcess(RuntimeError):
    """Another process of the run has ended, or its machine does not answer; the message is one sentence.

    Args:
        message: the sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turn the error of an exchange with a process that is gone into a sentence.

    NCCL ends the process by itself, before any error reaches Python, if its watchdog is on.

    Raises:
        LostProcess: gloo, NCCL or the store of the processes got no answer.
    """
    try:
        yield
    except RuntimeError as error:
        reason = _read_lost_connection(error)
        if reason is None:
            raise
        raise LostProcess(
            f"train: expected all {os.environ.get('WORLD_SIZE', process_count())} processes until the end of the run, "
            f"got no answer of one to process {os.environ.get('RANK', process_rank())} ({reason}); look for its error "
            "in the output of the others, and continue from the newest checkpoint with --resume auto."
        ) from error


def _read_lost_connection(error: RuntimeError) -> str | None:
    """Return what happened to a connection between the processes, in one line; None for any other error."""
    text = " ".join(str(error).split())
    if found := _GLOO_ERROR.search(text):
        return shorten(found[1])
    return shorten(text) if isinstance(error, distributed.DistError) else None
