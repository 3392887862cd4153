"""Calls something at the end of a training step, such as a signal to this process."""

from collections.abc import Callable
from typing import Any

from selfsr.training import loop


def call_in_step(step: int, action: Callable[[], Any]) -> None:
    """Call `action` at the end of a step's computation, in this process."""
    take_step = loop.take_step

    def wrapped(run: Any, batches: Any, clock: Any, *rest: Any) -> None:
        take_step(run, batches, clock, *rest)
        if clock.step == step:
            action()

    loop.take_step = wrapped
