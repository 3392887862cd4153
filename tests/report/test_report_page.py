"""The page as a whole: well-formed, self-contained, with the run's own numbers, and made from whatever is there."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from selfsr.errors import InputError
from selfsr.report import write_report

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Parses strictly enough to notice a tag that is not closed; keeps links, tables and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.rows: list[dict] = []
        self.texts: list[str] = []
        self.score: tuple[str | None, str | None] | None = None
        self.feed(text)
        self.close()

    def handle_startendtag(self, tag, attrs):
        self._note(tag, dict(attrs))

    def handle_starttag(self, tag, attrs):
        self._note(tag, dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> inside <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def _note(self, tag, attributes):
        self.references += [attributes[name] for name in ("src", "href", "action", "data") if name in attributes]
        if "data-metric" in attributes:
            self.score = (attributes["data-metric"], attributes["data-which"])
        if tag == "tr":
            self.rows.append({"score": self.score, "cells": []})
        if "data-value" in attributes:
            self.rows[-1]["cells"].append(attributes["data-value"])

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def runs(two_runs) -> dict[str, Path]:
    return two_runs


@pytest.fixture(scope="module")
def both(two_run_page) -> str:
    return two_run_page.read_text(encoding="utf-8")


def one(run: Path, tmp_path: Path) -> Page:
    return Page(write_report([run], tmp_path / "report.html").read_text(encoding="utf-8"))


def evaluations(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]


def test_page_is_well_formed(both):
    page = Page(both)
    assert page.open == []
    assert both.count("<h1>") == 1


def test_page_refers_to_nothing_outside_itself(both):
    page = Page(both)
    assert len(page.references) > 50
    assert [r for r in page.references if not r.startswith(("data:", "#"))] == []
    assert "://" not in both
    assert "@import" not in both
    assert set(re.findall(r"url\(([^)]{0,12})", both)) <= {"#scale", "#${clip}"}
    assert re.search(r"""Content-Security-Policy" content="default-src 'none'""", both)


def test_page_stays_small(both):
    assert len(both) < 5_000_000


def test_every_local_link_has_its_target(both):
    page = Page(both)
    ids = set(re.findall(r'\bid="([^"]+)"', both))
    assert {r[1:] for r in page.references if r.startswith("#")} <= ids


def test_score_tables_hold_the_values_of_the_evaluations(both, runs):
    lines = {name: evaluations(run) for name, run in runs.items()}
    best = {
        name: max(records[1:], key=lambda r: r["sets"]["held-out"]["mean"]["psnr_y"]) for name, records in lines.items()
    }
    bicubic = lines["plain"][0]["bicubic"]["held-out"]
    start = lines["similar"][0]["sets"]["held-out"]  # it started from a weights file, the other one did not
    plain, similar = (evaluation["sets"]["held-out"] for evaluation in best.values())
    columns = (bicubic, plain, start, similar)
    rows = Page(both).rows
    for metric in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
        expected = [
            [scores["images"][image][metric] for scores in columns] for image in ("astronaut", "chelsea", "coffee")
        ]
        expected.append([scores["mean"][metric] for scores in columns])
        found = [[float(c) for c in row["cells"]] for row in rows if row["cells"] and row["score"] == (metric, "best")]
        assert found == expected


def test_gains_have_their_sign(make_run, tmp_path):
    run = make_run(tmp_path / "run", samples=False)
    lines = evaluations(run)
    level = lines[0]["bicubic"]["held-out"]["mean"]["psnr_y"]
    for line in lines[1:]:
        line["sets"]["held-out"]["mean"]["psnr_y"] = level - 1.25
    lines[-1]["sets"]["held-out"]["images"]["coffee"]["psnr_y"] = (
        lines[0]["bicubic"]["held-out"]["images"]["coffee"]["psnr_y"] + 0.5
    )
    lines[-1]["sets"]["held-out"]["mean"]["psnr_y"] = level - 1.2
    (run / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<span class="gain down">1.20 dB <span class="against">lower than bicubic, worse</span></span>' in text
    assert '<span class="gain up">+0.50</span>' in text


def test_target_is_checked_before_the_page_is_rendered(make_run, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", samples=False)
    monkeypatch.setattr("selfsr.report.write.render_report", None)
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^report: expected an HTML file to write, got .*photos, which is a folder; "):
        write_report([run], tmp_path / "photos")
    with pytest.raises(InputError, match=r"^report: expected an HTML file to write, .*, but .*/file is a file; choose"):
        write_report([run], tmp_path / "file" / "report.html")


def test_step_0_is_best_only_without_other_evaluations(make_run, tmp_path):
    run = make_run(tmp_path / "run", samples=False)
    lines = evaluations(run)
    lines[0]["sets"]["held-out"]["mean"]["psnr_y"] = 99.0
    (run / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "99.00 dB" not in one(run, tmp_path).text
    (run / "eval.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert "99.00 dB" in one(run, tmp_path).text


def test_half_written_last_lines_are_left_out_and_named(make_run, tmp_path):
    run = make_run(tmp_path / "run", samples=False)
    whole = one(run, tmp_path).text
    for name in ("metrics.jsonl", "eval.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 1020, "epoch": 2.04, "loss": {"g": {"pix')
    text = one(run, tmp_path).text
    for name in ("metrics.jsonl", "eval.jsonl"):
        note = f"The last line of {name} is incomplete and left out; the run was probably killed."
        assert note in text
        text = text.replace(note, "")
    assert text.split() == whole.split()


def test_unfinished_run_says_where_it_is(make_run, tmp_path):
    run = make_run(tmp_path / "run", samples=False)
    assert "finished" in one(run, tmp_path).text
    for name in ("metrics.jsonl", "eval.jsonl"):
        lines = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(line for line in lines if json.loads(line)["step"] <= 640))
    assert "unfinished, at step 640 of 1,000" in one(run, tmp_path).text


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("recipe.yaml", "recipe.yaml is missing: network, scale and planned steps are unknown."),
        ("metrics.jsonl", "metrics.jsonl is missing."),
        ("eval.jsonl", "eval.jsonl is missing."),
    ],
)
def test_page_is_made_without_any_one_file_and_says_so(make_run, tmp_path, missing, said):
    run = make_run(tmp_path / "run", samples=False)
    (run / missing).unlink()
    page = one(run, tmp_path)
    assert page.open == []
    assert said in page.text
    assert "There are no sample images yet" in page.text


def test_page_is_made_when_only_the_start_of_a_run_is_there(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    page = one(run, tmp_path)
    for said in ("metrics.jsonl is empty.", "eval.jsonl is missing.", "Not evaluated yet."):
        assert said in page.text
    # Sections without content have neither a place nor an entry in the menu.
    links = [reference for reference in page.references if reference.startswith("#")]
    assert links == ["#main", "#shape-0", "#recipe"]


def test_broken_recipe_and_pictures_are_named(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    (run / "recipe.yaml").write_text("steps: [1, 2\n")
    (run / "samples" / "held-out" / "coffee" / "sr_00001000.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    (run / "samples" / "held-out" / "astronaut" / "hr.png").unlink()
    text = one(run, tmp_path).text
    assert "recipe.yaml is not readable as YAML" in text
    assert "run/samples/held-out/coffee/sr_00001000.png is not a readable image." in text
    assert "Sample held-out/astronaut is not shown, since it has no readable hr.png." in text


def test_logs_with_values_that_are_not_finite_make_a_page(make_run, tmp_path):
    run = make_run(tmp_path / "run", samples=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1001, "loss": {"g": {"pixel": NaN}}, "grad_norm": {"g": Infinity}}\n')
    text = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    data = re.search(r'id="chart-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    charts = json.loads(data[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["charts"]
    pixel = next(chart for chart in charts if chart["key"] == "loss/g/pixel")
    assert pixel["lines"][0]["x"][-1] == 1001
    assert pixel["lines"][0]["y"][-1] is None


def test_names_cannot_break_out_of_the_page(make_run, tmp_path):
    run = make_run(tmp_path / "a<script>alert(1)<b> & 'c' \"d\"", samples=False)
    text = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in text
    assert "a&lt;script&gt;alert(1)&lt;b&gt; &amp; &#39;c&#39; &#34;d&#34;" in text
    assert Page(text).open == []


def test_runs_of_the_same_name_get_their_parents(make_run, tmp_path):
    first = make_run(tmp_path / "monday" / "run", samples=False)
    second = make_run(tmp_path / "friday" / "run", samples=False)
    page = Page(write_report([first, second, first], tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "monday/run, friday/run" in page.text


def test_against_adds_a_run(make_run, tmp_path):
    run, other = make_run(tmp_path / "run", samples=False), make_run(tmp_path / "other", samples=False)
    out = tmp_path / "report.html"
    assert "<h1>run, other</h1>" in write_report([run], out, against=other).read_text(encoding="utf-8")
    assert "<h1>run, other</h1>" in write_report([run, other], out, against=run).read_text(encoding="utf-8")


def test_recipes_are_compared(both):
    text = Page(both).text
    assert "Where the recipes differ" in text
    assert "method.terms.similarity.kind - self_similarity" in text


def test_write_report_without_a_run_folder_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError) as empty:
        write_report([tmp_path / "photos"], tmp_path / "report.html")
    assert str(empty.value) == (
        "report: expected a run folder with recipe.yaml, metrics.jsonl, eval.jsonl or samples/, "
        f"got {tmp_path / 'photos'}, which has none of these; pass a folder made by selfsr train."
    )
    with pytest.raises(InputError, match="absent, which is not a folder; pass a folder made by selfsr train"):
        write_report([tmp_path / "absent"], tmp_path / "report.html")
    with pytest.raises(InputError, match="expected at least one run folder, got none"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_failed_writing_leaves_the_former_page(make_run, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", samples=False)
    out = tmp_path / "out" / "report.html"
    write_report([run], out)
    before = out.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report([run], out)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_report_command_writes_into_the_run_folder_by_default(make_run, tmp_path, monkeypatch):
    import typer
    from typer.testing import CliRunner

    from selfsr.cli.report import report

    app = typer.Typer()
    app.command()(report)
    run = make_run(tmp_path / "run", samples=False)
    other = make_run(tmp_path / "other", samples=False)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    assert runner.invoke(app, [str(run)], catch_exceptions=False).exit_code == 0
    assert (run / "report.html").exists()
    assert runner.invoke(app, [str(run), "--against", str(other)], catch_exceptions=False).exit_code == 0
    assert "run, other" in (tmp_path / "report.html").read_text()
    assert runner.invoke(app, [str(run), str(other), "-o", "two.html"], catch_exceptions=False).exit_code == 0
    assert (tmp_path / "two.html").exists()
