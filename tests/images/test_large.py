"""Arrays that are too large for memory."""

import errno
import os

import numpy as np
import pytest

from selfsr.images import large
from selfsr.images.large import new_array


def test_new_array_is_in_memory_or_in_a_nameless_file(tmp_path, monkeypatch):
    assert type(new_array((10, 10), np.dtype(np.uint16), tmp_path)) is np.ndarray
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    array = new_array((10, 10), np.dtype(np.uint16), tmp_path)
    assert isinstance(array, np.memmap)
    assert array.shape == (10, 10)
    array[3] = 7
    assert int(array.sum()) == 70
    assert list(tmp_path.iterdir()) == []


def test_new_array_without_fallocate_writes_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    monkeypatch.setattr(large, "_CHUNK_BYTES", 64)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    array = new_array((15, 10), np.dtype(np.uint8), tmp_path)
    assert array.shape == (15, 10)
    assert int(array.sum()) == 0


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_new_array_on_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    monkeypatch.setattr(large, "reserve", full_disk)
    with pytest.raises(OSError, match="No space left") as error:
        new_array((20, 10), np.dtype(np.uint8), tmp_path)
    assert error.value.filename == str(tmp_path)
