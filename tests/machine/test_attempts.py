"""Processes of a new attempt agree on a name, whatever killed ones left in the store."""

import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from selfsr.errors import InputError
from selfsr.machine.attempts import agree_on_attempt, choose_init_method

LIMIT = timedelta(seconds=20)


def meet(store: HashStore, world: int, order: list[int]) -> dict[int, str]:
    """Start the processes of an attempt as threads, in this order; return the name that each gets."""
    names: dict[int, str] = {}

    def run(rank: int) -> None:
        names[rank] = agree_on_attempt(store, rank, world, LIMIT)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in order]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return names


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_each_attempt_has_one_name_of_its_own(order: list[int]) -> None:
    store = HashStore()
    names = [meet(store, 3, order) for _ in range(3)]
    assert [len(set(each.values())) for each in names] == [1, 1, 1]
    assert len({each[0] for each in names}) == 3


def test_a_question_of_a_killed_process_is_harmless() -> None:
    store = HashStore()
    store.set("question/1", "of a killed process")
    assert len(set(meet(store, 2, [0, 1]).values())) == 1


def test_a_missing_process_is_a_sentence() -> None:
    with pytest.raises(InputError, match=r"expected all processes of torchrun to meet, got no answer of process 1; "):
        agree_on_attempt(HashStore(), 0, 2, timedelta(seconds=0.1))


def test_without_torchrun_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert choose_init_method() is None
