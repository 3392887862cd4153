"""Progress: a line every so often in a file or a pipe, and a bar whose numbers stay in a narrow terminal."""

import io
import json
import re
from collections.abc import Iterator

import pytest
from rich.cells import cell_len
from rich.console import Console

from selfsr import console

GAN_LOSSES = (
    "g/pixel 0.04258  g/similarity 0.0611  g/perceptual 0.5012  g/adversarial_d 0.07452  d/real 0.7454  d/fake 0.6437"
)


class Time:
    """A clock that stands still between steps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(console, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def restored_log_style() -> Iterator[None]:
    yield
    console.set_log_style("auto")


def set_output(monkeypatch: pytest.MonkeyPatch, width: int | None) -> io.StringIO:
    """Print to a file that is no terminal, or to a terminal of a width."""
    file = io.StringIO()
    if width is None:
        output = Console(file=file)
    else:
        output = Console(file=file, force_terminal=True, width=width, color_system="standard")
    monkeypatch.setattr(console, "console", output)
    return file


def train(clock: Time, *, steps: int, step_s: float, done: int = 100, total: int = 20_000) -> None:
    """Move a bar as training does, with an evaluation of 3 s at the end."""
    with console.progress_bar("Training small_esrgan_ssl_x4", total, done=done) as advance:
        for _ in range(steps):
            clock.now_s += step_s
            advance()
            advance(0, note=GAN_LOSSES)
        with console.progress_bar("Evaluating step 500", 2) as advance_evaluation:
            clock.now_s += 3
            advance_evaluation(2)


def test_a_pipe_gets_a_line_soon_and_then_every_30_seconds(monkeypatch: pytest.MonkeyPatch, clock: Time) -> None:
    file = set_output(monkeypatch, width=None)
    train(clock, steps=400, step_s=0.25)  # 100 s
    assert file.getvalue().splitlines() == [
        # 4 steps a second: 19,880 steps are left, which are 4,970 s; then 19,760 and so on
        f"Training small_esrgan_ssl_x4 120/20000 4/s left 1:22:50  {GAN_LOSSES}",
        f"Training small_esrgan_ssl_x4 240/20000 4/s left 1:22:20  {GAN_LOSSES}",
        f"Training small_esrgan_ssl_x4 360/20000 4/s left 1:21:50  {GAN_LOSSES}",
        f"Training small_esrgan_ssl_x4 480/20000 4/s left 1:21:20  {GAN_LOSSES}",
        "Evaluating step 500 2/2 in 0:00:03",
        f"Training small_esrgan_ssl_x4 500/20000 in 0:01:43  {GAN_LOSSES}",
    ]


def test_the_time_left_has_evaluations_and_the_speed_has_not(monkeypatch: pytest.MonkeyPatch, clock: Time) -> None:
    file = set_output(monkeypatch, width=None)
    with console.progress_bar("Training", 100) as advance:
        clock.now_s += 40
        advance(0, pause_s=40.0, further_s=2 * 20.0)
        for _ in range(20):
            clock.now_s += 2
            advance()
        clock.now_s += 20
        advance(0, pause_s=20.0, further_s=20.0)
        for _ in range(10):
            clock.now_s += 2
            advance()
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("Training 0/100 -/s left -:--:--")
    # at step 15, 85 steps of 2 s and two evaluations of 20 s are left
    assert lines[1].startswith("Training 15/100 0.5/s left 0:03:30")
    # after 20 steps of 2 s and one evaluation, 80 steps and one evaluation are left
    assert lines[2].startswith("Training 20/100 0.5/s left 0:03:00")


def test_json_lines_have_numbers(
    monkeypatch: pytest.MonkeyPatch, clock: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    file = set_output(monkeypatch, width=80)
    console.set_log_style("json")
    train(clock, steps=2, step_s=10.0, done=0, total=4)
    console.print_event("end", {"steps": 4})
    assert file.getvalue() == ""
    title = "Training small_esrgan_ssl_x4"
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": "progress", "title": title, "done": 1, "total": 4, "per_s": 0.1, "left_s": 30.0},
        {"event": "progress", "title": "Evaluating step 500", "done": 2, "total": 2, "per_s": 0.6667, "elapsed_s": 3.0},
        {"event": "progress", "title": title, "done": 2, "total": 4, "per_s": 0.1, "elapsed_s": 23.0},
        {"event": "end", "steps": 4},
    ]


def test_plain_lines_in_a_terminal_by_choice(monkeypatch: pytest.MonkeyPatch, clock: Time) -> None:
    file = set_output(monkeypatch, width=80)
    console.set_log_style("plain")
    train(clock, steps=4, step_s=2.0)
    assert "━" not in file.getvalue()
    assert "103/20000 0.5/s left 11:03:14" in file.getvalue()  # 19,897 steps of 2 s


@pytest.mark.parametrize("width", [60, 80, 120])
def test_step_speed_and_time_left_stay_with_many_terms(
    monkeypatch: pytest.MonkeyPatch, clock: Time, width: int
) -> None:
    file = set_output(monkeypatch, width)
    train(clock, steps=400, step_s=0.25)
    frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()))
    shown = [frame for frame in frames if "500/20000" in frame]
    assert shown
    for frame in shown:
        assert cell_len(frame) <= width
        assert frame.startswith("Train")
        assert "500/20000 4/s left 1:21:15" in frame
        assert len(re.findall("[━╸╺]", frame)) >= 8
    terms = {60: 0, 80: 1, 120: 2}[width]
    kept = re.findall(r"\w+/\w+ \d+\.\d+", shown[-1].split("1:21:15")[1])
    assert kept == GAN_LOSSES.split("  ")[: len(kept)]
    assert len(kept) >= terms


def test_title_and_note_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "console", Console(width=80))
    numbers = "n" * 31
    # 80 less the bar of 10, the numbers of 31 and 5 gaps are 34 columns.
    assert console.fit_texts("t" * 40, "", numbers) == ("t" * 33 + "…", "")
    assert console.fit_texts("t" * 40, "n" * 40, numbers) == ("t" * 16 + "…", "n" * 16 + "…")
    assert console.fit_texts("title", "pixel 0.1  real 0.2  fake 0.3", numbers) == (
        "title",
        "pixel 0.1  real 0.2  fake 0.3",
    )
    # "title" leaves 29 columns: "pixel 0.1", "real 0.22222" and "…" are 24, and "fake 0.3" would be 34.
    assert console.fit_texts("title", "pixel 0.1  real 0.22222  fake 0.3", numbers)[1] == "pixel 0.1  real 0.22222  …"
    assert console.fit_texts("t" * 40, "note", numbers) == ("t" * 29 + "…", "note")


@pytest.mark.parametrize(("columns", "width"), [("72", 72), ("", None), ("wide", None), ("0", None)])
def test_columns_set_the_width_of_a_pipe(monkeypatch: pytest.MonkeyPatch, columns: str, width: int | None) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert console.pipe_width() == width
