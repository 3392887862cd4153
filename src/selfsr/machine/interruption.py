"""Ctrl-C and SIGTERM: stop after the step, then at once."""

import contextlib
import signal
from types import FrameType

from selfsr.console import print_line


class Interruption:
    """Ctrl-C and SIGTERM ask the loop to stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self.asked_for = False
        self._former: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        with contextlib.suppress(ValueError):  # not in the main thread: nobody can press Ctrl-C on it
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)  # pyright: ignore[reportArgumentType]

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        if self.asked_for:
            raise KeyboardInterrupt
        self.asked_for = True
        print_line("Stopping after this step and saving; once more to stop at once.")
