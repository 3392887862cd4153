"""A function in a process of its own: its result, and a crash as an error."""

import os
import signal
import sys

import pytest
import torch

from selfsr.machine.isolated import CrashError, run_isolated

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs processes that can be copied")


def test_the_result_of_large_bytes_and_of_convolutions_comes_back() -> None:
    assert run_isolated(lambda: bytes(range(256)) * 10_000) == bytes(range(256)) * 10_000
    image, weight = torch.rand(1, 8, 64, 64), torch.rand(8, 8, 3, 3)
    expected = torch.nn.functional.conv2d(image, weight)
    content = run_isolated(lambda: torch.nn.functional.conv2d(image, weight).numpy().tobytes())
    assert isinstance(content, bytes)
    torch.testing.assert_close(torch.frombuffer(bytearray(content), dtype=torch.float32), expected.flatten())


def test_the_copy_prints_nothing_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_isolated(lambda: str(os.write(1, b"graph"))) == "5"
    assert capfd.readouterr().out == ""


def test_a_crash_and_an_early_end_are_errors() -> None:
    with pytest.raises(CrashError, match=r"^SIGKILL$"):
        run_isolated(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(CrashError, match=r"^exit status 3$"):
        run_isolated(lambda: os._exit(3))


def test_the_copy_changes_nothing_here() -> None:
    values, threads = [1], torch.get_num_threads()

    def change() -> str:
        values.append(2)
        return str(os.getpid())

    assert run_isolated(change) != str(os.getpid())
    assert (values, torch.get_num_threads()) == ([1], threads)
