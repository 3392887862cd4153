"""What a page of a running training shows and reads while it is followed."""

from dataclasses import dataclass
from typing import Literal

State = Literal["running", "silent", "waiting"]


@dataclass(frozen=True)
class LiveState:
    """The state of a followed run.

    Attributes:
        script: name of the script next to the page; the page reads it to know when to reload.
        stamp: changes with every rewriting of the page.
        state: "running", "silent" if there has been no new step for long, or "waiting" for the first one.
        text: the state in a sentence.
    """

    script: str
    stamp: str
    state: State
    text: str
