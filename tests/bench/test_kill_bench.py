"""The killing test itself: it counts and stops the calls that it says, and sees a difference of one bit."""

import json
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import kill
from programs import Program, run_python

WRITER = """
import sys
import kill
from pathlib import Path
from selfsr.fileio import write_atomic

kill.inject(sys.argv[1])
for number in range(3):
    write_atomic(Path(f"{number}.txt"), "0123456789")
with open("log.txt", "a") as log:
    log.write("0123456789")
Path("log.txt").read_text()
"""


def write_files(folder: Path, injection: str) -> Program:
    """Write three files atomically and append to a fourth, in a process with an injection."""
    path = [str(Path(kill.__file__).parent), *sys.path]
    script = f"import sys; sys.path[:0] = {path!r}\n{WRITER}"
    return run_python("-c", script, injection, cwd=folder)


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.suffix == ".txt"}


def test_calls_are_counted(tmp_path: Path) -> None:
    assert write_files(tmp_path, f"count:{tmp_path / 'calls.json'}").returncode == 0
    counted = json.loads((tmp_path / "calls.json").read_text())
    assert counted["calls"] == {"write": 4, "replace": 3, "fsync": 3}
    assert sizes(tmp_path) == {"0.txt": 10, "1.txt": 10, "2.txt": 10, "log.txt": 10}


@pytest.mark.parametrize(
    ("injection", "files"),
    [
        ("", {"0.txt": 10, "1.txt": 10, "2.txt": 10, "log.txt": 10}),
        ("write:2:die", {"0.txt": 10}),
        ("replace:3:die", {"0.txt": 10, "1.txt": 10}),
        ("fsync:1:die", {}),
        ("write:4:die", {"0.txt": 10, "1.txt": 10, "2.txt": 10, "log.txt": 5}),
        ("write:4:fail", {"0.txt": 10, "1.txt": 10, "2.txt": 10, "log.txt": 5}),
        ("replace:2:fail", {"0.txt": 10}),
        ("write:5:die", {"0.txt": 10, "1.txt": 10, "2.txt": 10, "log.txt": 10}),
    ],
)
def test_the_chosen_call_stops_the_process(tmp_path: Path, injection: str, files: dict[str, int]) -> None:
    process = write_files(tmp_path, injection)
    assert sizes(tmp_path) == files
    if injection in ("", "write:5:die"):
        assert process.returncode == 0
    elif injection.endswith("die"):
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.stderr.strip().splitlines()[-1].startswith("OSError: [Errno 28]")


def test_kills_are_drawn_from_the_calls_and_the_time_that_are_left() -> None:
    straight = kill.Straight(start_s=5.0, total_s=15.0, calls={"write": 200, "replace": 120, "fsync": 120})
    rng = random.Random(0)
    for left, kills_left in ((1.0, 1), (0.5, 4), (0.0, 10)):
        numbers: dict[str, list[int]] = {call: [] for call in kill.CALLS}
        for _ in range(3000):
            call, number, way = kill.choose_injection(rng, straight, left, kills_left).split(":")
            assert way in ("die", "fail")
            numbers[call].append(int(number))
            assert 5 <= kill.choose_timeout_s(rng, straight, left, kills_left) <= 5 + 10 * left
        for call, drawn in numbers.items():
            largest = max(1, straight.calls[call] * left)
            assert min(drawn) == 1
            assert max(drawn) <= largest
            # The mean of the smallest of k uniform numbers is 1 / (k + 1).
            assert sum(drawn) / len(drawn) == pytest.approx(0.5 + largest / (kills_left + 1), rel=0.12, abs=0.5)


def test_a_difference_of_one_bit_is_seen() -> None:
    weight = torch.linspace(0, 1, 6).view(2, 3)
    other = weight.clone()
    other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(2.0))
    one = {"step": 3, "nets": [{"w": weight}], "text": "a"}
    assert kill.differences(one, {"step": 3, "nets": [{"w": weight.clone()}], "text": "a"}) == []
    assert kill.differences(one, {"step": 3, "nets": [{"w": other}], "text": "a"}) == ["/nets/0/w"]
    assert kill.differences(one, {"step": 4, "nets": [{"w": weight}]}) == ["/step", "/text"]


def test_the_kinds_of_kills_are_counted() -> None:
    assert kill.describe(Counter(["write", "outside", "write"])) == "3 kills (1 outside, 2 write)"
