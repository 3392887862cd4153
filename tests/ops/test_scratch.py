"""The compiled backends' memory: whose it is, and when it serves again."""

import threading

import numpy as np
import pytest

from selfsr._ops import scratch

LARGE = (1 << 20,)  # of float32: 4 MiB


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_free", {})


@pytest.mark.parametrize("shape", [(3,), (625, 7), (1000, 1000), (7, 11, 13000), (0, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_is_like_any_other(shape: tuple[int, ...], dtype: type) -> None:
    array = scratch.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array.fill(1)
    assert array.sum() == array.size


def test_memory_serves_again_once_its_array_is_no_more() -> None:
    first = scratch.empty(LARGE, np.float32)
    second = scratch.empty(LARGE, np.float32)
    assert not np.shares_memory(first, second)
    place = first.ctypes.data
    del first
    third = scratch.empty((1000, 1000), np.float32)
    assert third.ctypes.data == place
    assert not np.shares_memory(second, third)


def test_a_tensor_of_an_array_keeps_its_memory() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(scratch.empty(LARGE, np.float32)).fill_(2).detach()[10:]
    other = scratch.empty(LARGE, np.float32)
    other.fill(3)
    assert (tensor == 2).all()


def test_much_smaller_arrays_leave_a_large_block_alone() -> None:
    del_me = scratch.empty((1 << 24,), np.float32)
    place = del_me.ctypes.data
    del del_me
    assert scratch.empty(LARGE, np.float32).ctypes.data != place


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "KEPT_BYTES", 9 << 20)
    arrays = [scratch.empty(LARGE, np.float32) for _ in range(4)]
    places = [array.ctypes.data for array in arrays]
    while arrays:
        arrays.pop(0)
    assert list(scratch._free) == places[2:]


def test_threads_never_share_memory() -> None:
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            array = scratch.empty(LARGE, np.int32)
            array[::4096] = number
            if not (array[::4096] == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
