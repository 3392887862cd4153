"""Handle Ctrl-C and SIGTERM during a run."""

import contextlib
import signal
from types import FrameType

from selfsr.console import print_line


class Interruption:
    """Context in which Ctrl-C and SIGTERM request a stop after the step; a second signal stops immediately.

    Attributes:
        stop_requested: whether a signal came.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self._previous_handlers: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        with contextlib.suppress(ValueError):  # outside the main thread, which gets no signals
            for number in (signal.SIGINT, signal.SIGTERM):
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
