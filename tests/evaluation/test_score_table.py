"""The score table of `selfsr evaluate`: nothing is cut in a terminal of 80 columns, however many metrics and names."""

import re

import pytest
from rich.cells import cell_len

from selfsr.cli.score_table import Row, ScoreTable, tabulate_scores
from selfsr.evaluation.benchmark import SetScores
from selfsr.evaluation.metrics import METRICS

TITLES = [metric.title for metric in METRICS.values()]


def make_table(sets: list[str], upscaler: str, titles: list[str] = TITLES) -> ScoreTable:
    rows = [
        Row((name, upscaler, "5"), [f"{row}{column:02}.{column:04}" for column in range(len(titles))])
        for row, name in enumerate(sets)
    ]
    return ScoreTable(("x4", "upscaler", "images"), titles, rows, "Higher is better: PSNR-Y. Lower is better: LPIPS.")


def read_lines(table: ScoreTable, width: int | None) -> list[str]:
    return [line for line, _ in table.to_lines(width)]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_blocks_fit_and_show_every_score_and_title(width: int) -> None:
    table = make_table(["Set5", "Set14/img_001"], "gan.safetensors")
    lines = read_lines(table, width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    for row in table.rows:
        for score in row.scores:
            assert text.count(score) == 1
    words = " ".join(TITLES).split()
    for word in words:
        assert len(re.findall(rf"(?<!\S){re.escape(word)}(?!\S)", text)) >= words.count(word)
    # Each block repeats the names.
    blocks = text.split("\n\n")
    assert len(blocks) > 1
    assert all("Set14/img_001  gan.safetensors" in block for block in blocks)
    assert "Lower is better: LPIPS." in " ".join(text.split())


def test_a_score_stands_below_its_title() -> None:
    table = make_table(["Set5"], "a.pth")
    for block in "\n".join(read_lines(table, 80)).split("\n\n"):
        *headings, row = [line for line in block.splitlines() if "better" not in line]
        for match in re.finditer(r"\d{3}\.\d{4}", row):
            column = int(match.group()[1:3])
            # The last word of the title ends where the score ends.
            assert headings[-1][: match.end()].endswith(TITLES[column].split()[-1])


def test_long_names_have_lines_of_their_own() -> None:
    upscaler = "4x a name of many words and_one_long_word_that_goes_on_and_on.safetensors"
    table = make_table(["DIV2K_valid_HR"], upscaler)
    lines = read_lines(table, 80)
    assert lines[1] == f"DIV2K_valid_HR  {upscaler}  5"
    assert max(map(cell_len, lines[2:])) <= 80
    for score in table.rows[0].scores:
        assert sum(score in line for line in lines) == 1


def test_a_table_that_fits_is_one_block_and_a_file_gets_one_line_for_each_row() -> None:
    few = make_table(["Set5", "Set14"], "a.pth", ["PSNR-Y", "LPIPS"])
    assert read_lines(few, 80) == [
        "x4     upscaler  images    PSNR-Y     LPIPS",
        "Set5   a.pth          5  000.0000  001.0001",
        "Set14  a.pth          5  100.0000  101.0001",
        "Higher is better: PSNR-Y. Lower is better: LPIPS.",
    ]
    many = make_table(["Set5"], "a" * 90)
    lines = read_lines(many, None)
    assert len(lines) == 3
    assert "Self-similarity distance" in lines[0]


def test_wide_characters_keep_the_columns() -> None:
    lines = read_lines(make_table(["照片", "ab"], "a.pth", ["PSNR-Y"]), 80)
    assert len({cell_len(line) for line in lines[:3]}) == 1


def test_scores_that_are_missing_or_undefined_are_a_dash() -> None:
    nan = float("nan")
    scores = SetScores("s", {"a": {"psnr_y": 31.234, "niqe": nan}, "b": {"psnr_y": 30.0, "niqe": nan}}, {"fid": 7.0})
    table = tabulate_scores({"m.pth": {"s": scores}}, 4, per_image=True)
    assert table.titles == ["PSNR-Y", "NIQE", "FID"]
    assert [list(row.scores) for row in table.rows] == [
        ["31.23", "-", "-"],
        ["30.00", "-", "-"],
        ["30.62", "-", "7.00"],
    ]
    assert [row.is_dim for row in table.rows] == [True, True, False]
    assert table.caption == "Higher is better: PSNR-Y. Lower is better: NIQE, FID."
