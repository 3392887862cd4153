"""Let the processes of a run meet after torchrun has started them again.

torchrun keeps one store for all attempts of a run. Processes of a new attempt can read there the addresses of processes
that were killed, and fail to connect (seen with torch 2.14). So each attempt gets a part of the store for itself.
"""

import os
import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from selfsr.errors import InputError

_SCHEME = "selfsr-attempt"
_POLL_S = 0.02
_registered = False


def choose_init_method() -> str | None:
    """Return the `init_method` of `init_process_group`: one of its own below torchrun, None otherwise."""
    global _registered
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return None
    if not _registered:
        register_rendezvous_handler(_SCHEME, _meet)
        _registered = True
    return f"{_SCHEME}://"


def agree_on_attempt(store: Store, rank: int, world: int, timeout: timedelta) -> str:
    """Return a name of this attempt that all of its processes get, and no process of another attempt.

    Each process asks under a random number, which the first process answers with the name. It asks again until all
    have acknowledged, since a question may be one of a killed process.

    Args:
        store: the store of all attempts.
        rank: number of this process.
        world: number of processes.
        timeout: limit for the others to come.

    Raises:
        InputError: a process did not come in time.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    if rank > 0:
        question = secrets.token_hex(8)
        store.set(f"question/{rank}", question)
        _wait(lambda: store.check([f"answer/{question}"]), deadline, "process 0")
        name = store.get(f"answer/{question}").decode()
        store.set(f"acknowledged/{name}/{rank}", "1")
        return name
    name = secrets.token_hex(8)
    for other in range(1, world):
        _wait(lambda other=other: _answer(store, name, other), deadline, f"process {other}")
    return name


def _answer(store: Store, name: str, rank: int) -> bool:
    """Answer the newest question of a process; return whether it has acknowledged."""
    if store.check([f"question/{rank}"]):
        store.set(f"answer/{store.get(f'question/{rank}').decode()}", name)
    return store.check([f"acknowledged/{name}/{rank}"])


def _wait(is_done: Any, deadline: float, whom: str) -> None:
    while not is_done():
        if time.monotonic() > deadline:
            raise InputError(
                f"train: expected all processes of torchrun to meet, got no answer of {whom}; look for its error "
                "above, and check the network with selfsr doctor --rendezvous."
            )
        time.sleep(_POLL_S)


def _meet(_: str, timeout: timedelta = timedelta(minutes=10), **__: Any) -> Iterator[tuple[Store, int, int]]:
    store, rank, world = next(iter(rendezvous("env://", timeout=timeout)))
    yield PrefixStore(agree_on_attempt(store, rank, world, timeout), store), rank, world
