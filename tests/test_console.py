"""Progress bars: a line in a file or a pipe, and a bar that stays in a narrow terminal."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from selfsr import console

LOSSES = "g/pixel 0.03123  g/similarity 0.0001234  g/adversarial_d 0.693"


def show(monkeypatch: pytest.MonkeyPatch, width: int | None) -> str:
    """Move a bar with one inside, as training does; return what is printed. A width is that of a terminal."""
    file = io.StringIO()
    if width is None:
        output = Console(file=file)
    else:
        output = Console(file=file, force_terminal=True, width=width, color_system="standard")
    monkeypatch.setattr(console, "console", output)
    with console.progress_bar("Training small_edsr_x2_similarity", 20_000, done=100) as advance:
        advance(400, note=LOSSES)
        with console.progress_bar("Evaluating step 500", 2) as advance_evaluation:
            advance_evaluation(2)
    return file.getvalue()


def test_a_pipe_gets_one_line_for_each_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(monkeypatch, width=None).splitlines() == [
        "Evaluating step 500 2/2 in 0:00:00",
        f"Training small_edsr_x2_similarity 500/20000 in 0:00:00 {LOSSES}",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_bar_stays_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", show(monkeypatch, width)))
    with_note = [frame for frame in frames if "500/20000" in frame]
    assert with_note
    for frame in with_note:
        assert cell_len(frame) <= width
        assert frame.startswith("Train")
        assert len(re.findall("[━╸╺]", frame)) >= 10
        assert "g/pix" in frame
    assert (LOSSES in with_note[-1]) == (width == 200)


def test_title_and_note_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "console", Console(width=80))
    # 80 less the bar of 10, the numbers of 31 ("20000/20000 0:00:00 left 0:00:00") and 4 gaps are 34 columns.
    assert console.fit_texts("t" * 40, "", 20_000) == ("t" * 33 + "…", "")
    assert console.fit_texts("t" * 40, "n" * 40, 20_000) == ("t" * 16 + "…", "n" * 16 + "…")
    assert console.fit_texts("title", "n" * 40, 20_000) == ("title", "n" * 28 + "…")
    assert console.fit_texts("t" * 40, "note", 20_000) == ("t" * 29 + "…", "note")
