"""The work memory of the compiled backends: ownership and reuse."""

import threading

import numpy as np
import pytest

from selfsr._ops import scratch

LARGE = (1 << 20,)  # of float32: 4 MiB


@pytest.fixture(autouse=True)
def _no_kept_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_free", {})


@pytest.mark.parametrize("shape", [(3,), (625, 7), (1000, 1000), (7, 11, 13000), (0, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_array_is_contiguous_and_writable(shape: tuple[int, ...], dtype: type) -> None:
    array = scratch.empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array.fill(1)
    assert array.sum() == array.size


def test_memory_is_reused_once_its_array_is_gone() -> None:
    first = scratch.empty(LARGE, np.float32)
    second = scratch.empty(LARGE, np.float32)
    assert not np.shares_memory(first, second)
    address = first.ctypes.data
    del first
    third = scratch.empty((1000, 1000), np.float32)
    assert third.ctypes.data == address
    assert not np.shares_memory(second, third)


def test_tensor_of_an_array_keeps_its_memory() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(scratch.empty(LARGE, np.float32)).fill_(2).detach()[10:]
    other = scratch.empty(LARGE, np.float32)
    other.fill(3)
    assert (tensor == 2).all()


def test_small_array_does_not_reuse_a_much_larger_block() -> None:
    large = scratch.empty((1 << 24,), np.float32)
    address = large.ctypes.data
    del large
    assert scratch.empty(LARGE, np.float32).ctypes.data != address


def test_kept_memory_is_bounded_and_drops_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "KEPT_BYTES", 9 << 20)
    arrays = [scratch.empty(LARGE, np.float32) for _ in range(4)]
    addresses = [array.ctypes.data for array in arrays]
    while arrays:
        arrays.pop(0)
    assert list(scratch._free) == addresses[2:]


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
