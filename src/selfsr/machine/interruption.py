"""Handle Ctrl-C, SIGTERM and SIGUSR1 during a run."""

import contextlib
import signal
from types import FrameType

from selfsr.console import print_line

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class Interruption:
    """Context in which Ctrl-C, SIGTERM and SIGUSR1 request a stop after the step; a second signal stops immediately.

    Slurm sends SIGUSR1 before the end of a job, with `--signal=USR1@60`.

    Attributes:
        stop_requested: whether a signal came.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self._previous_handlers: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        with contextlib.suppress(ValueError):  # outside the main thread, which gets no signals
            for number in _SIGNALS:
                self._previous_handlers[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _request_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested: bool = True
        print_line("Stopping after this step, then saving; press Ctrl-C again to stop at once.")
