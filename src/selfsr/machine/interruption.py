"""Handle Ctrl-C, SIGTERM, SIGUSR1 and the end of torchrun during a run."""

import contextlib
import os
import signal
from types import FrameType

from selfsr.console import print_line

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Interruption:
    """Context in which Ctrl-C, SIGTERM and SIGUSR1 request a stop after the step; a second signal stops immediately.

    Slurm sends SIGUSR1 before the end of a job, with `--signal=USR1@60`. A torchrun that is killed leaves its processes
    behind, which nobody watches; they also stop after the step.

    Args:
        saves: whether the run saves after the step; only for the message.
    """

    def __init__(self, *, saves: bool = True) -> None:
        self._saves = saves
        self._is_requested = False
        self._launcher: int | None = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._previous_handlers: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        with contextlib.suppress(ValueError):  # outside the main thread, which gets no signals
            for number in _SIGNALS:
                self._previous_handlers[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    @property
    def stop_requested(self) -> bool:
        """Whether a signal came, or torchrun, which started this process, has ended."""
        if self._launcher is not None and os.getppid() != self._launcher:
            self._launcher = None
            self._is_requested = True
            print_line("torchrun has ended before its processes; stopping after this step, then saving.")
        return self._is_requested

    def _request_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if self._is_requested:
            raise KeyboardInterrupt
        self._is_requested: bool = True
        saving = ", then saving" if self._saves else ""
        print_line(f"Stopping after this step{saving}; press Ctrl-C again to stop at once.")
