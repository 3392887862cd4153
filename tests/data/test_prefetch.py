"""The prefetch thread on a stand-in for a GPU: order, run-ahead, errors, the end; and a run with it."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfsr.data import prefetch
from selfsr.data.prefetch import DirectSource, Prefetcher, choose_source
from selfsr.data.steps import RawBatch, RawPart
from selfsr.errors import InputError
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import load_state
from selfsr.training import loop


class FakeLane:
    """Copies in memory; it records the threads, and which copies the step waited for."""

    def __init__(self) -> None:
        self.copied: list[Tensor] = []
        self.copy_threads: set[int] = set()
        self.received: list[int] = []

    def copy(self, tensor: Tensor) -> Tensor:
        self.copy_threads.add(threading.get_ident())
        self.copied.append(tensor.clone())
        return self.copied[-1]

    def mark(self) -> int:
        return len(self.copied)

    def receive(self, tensors: list[Tensor], mark: int) -> None:
        assert all(any(tensor is copied for copied in self.copied[:mark]) for tensor in tensors)
        self.received.append(mark)


class FakeLoader:
    """Batches that contain their number; the one with number `fails_at` is an error."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.number = 0
        self.fails_at = fails_at
        self.started_in: list[int] = []

    def start(self) -> None:
        self.started_in.append(threading.get_ident())

    def __next__(self) -> RawBatch:
        if self.number == self.fails_at:
            raise InputError("data.hr: no image is left.")
        number, self.number = self.number, self.number + 1
        images = torch.full((1, 2, 2, 3), number, dtype=torch.uint8)
        part = RawPart(0, (0,), images, images + 100 if number % 2 else None, None, None)
        return RawBatch(number, 0, (part,), (), (), {})


def test_batches_come_in_order_through_the_lane() -> None:
    lane, loader = FakeLane(), FakeLoader()
    source = Prefetcher(loader, lane)  # pyright: ignore[reportArgumentType]
    batches = [source.load() for _ in range(6)]
    source.close()
    assert [batch.step for batch in batches] == list(range(6))
    assert [int(batch.parts[0].hr[0, 0, 0, 0]) for batch in batches] == list(range(6))
    assert [batch.parts[0].lr is None for batch in batches] == [True, False] * 3
    assert lane.received == [1, 3, 4, 6, 7, 9]
    assert threading.get_ident() not in lane.copy_threads
    assert loader.started_in == [threading.get_ident()]  # processes are forked by the main thread


def test_thread_runs_ahead_by_a_few_batches_only() -> None:
    loader = FakeLoader()
    source = Prefetcher(loader, FakeLane())  # pyright: ignore[reportArgumentType]
    source.load()
    limit, deadline = 1 + prefetch._DEPTH + 1, time.monotonic() + 20
    while loader.number < limit and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert loader.number == limit  # one taken, the queue full, one waiting for a place
    source.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_error_is_raised_where_its_batch_would_be() -> None:
    source = Prefetcher(FakeLoader(fails_at=3), FakeLane())  # pyright: ignore[reportArgumentType]
    assert [source.load().step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"^data\.hr: no image is left\.$"):
        source.load()
    source.close()


def test_source_that_was_never_used_can_be_closed() -> None:
    Prefetcher(FakeLoader(), FakeLane()).close()  # pyright: ignore[reportArgumentType]


def test_a_cpu_takes_batches_directly() -> None:
    source = choose_source(FakeLoader(), torch.device("cpu"))  # pyright: ignore[reportArgumentType]
    assert isinstance(source, DirectSource)
    assert source.load().step == 0
    source.close()


def test_run_with_the_thread_has_the_same_bits(tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe({**tiny, "evaluate": None}, "x")

    def train(name: str) -> Any:
        loop.fit(recipe, tmp_path / name, device="cpu")
        return load_state(tmp_path / name, print)["nets"]["g"]

    direct = train("direct")
    lane = FakeLane()
    monkeypatch.setattr(loop, "choose_source", lambda loader, device: Prefetcher(loader, lane))
    ahead = train("ahead")
    assert len(lane.received) == recipe.steps
    assert all(torch.equal(direct[name], ahead[name]) for name in direct)
