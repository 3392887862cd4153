"""Following a training: when the page is rewritten, what it says, and when following ends."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from chromium import Chromium
from selfsr.cli.report import report
from selfsr.errors import InputError
from selfsr.report import follow
from selfsr.report.follow import follow_runs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewrite the page at each check."""
    monkeypatch.setattr(follow, "LEAST_PAUSE_S", 0.0)
    monkeypatch.setattr(follow, "LARGEST_PAUSE_S", 0.0)


@pytest.fixture
def complete(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a finished run with one sample image."""
    folder = make_run(tmp_path / "complete", steps=100, side=96)
    for name in ("astronaut", "coffee"):
        shutil.rmtree(folder / "samples" / "held-out" / name)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "my"


def lock(run: Path) -> None:
    """Write the record that this process trains in the folder."""
    process = psutil.Process()
    record = {"pid": process.pid, "host": os.uname().nodename, "started": process.create_time()}
    (run / ".lock").write_text(json.dumps(record))


def unlock(run: Path) -> None:
    (run / ".lock").write_text(json.dumps({"pid": 2**22 + 1, "host": os.uname().nodename, "started": 0}))


def copy_until(complete: Path, run: Path, step: int) -> None:
    """Write the logs and samples of the first steps."""
    run.mkdir(parents=True, exist_ok=True)
    shutil.copy(complete / "recipe.yaml", run)
    for name in ("metrics.jsonl", "eval.jsonl"):
        lines = (complete / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
    for path in sorted((complete / "samples").rglob("*.png")):
        numbered = re.search(r"_(\d{8})", path.name)
        target = run / path.relative_to(complete)
        if (numbered is None or int(numbered[1]) <= step) and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


class Script:
    """Plays a training: one action in each pause of the following command, with a look at the page before it."""

    def __init__(self, run: Path, *actions: Callable[[], None]) -> None:
        self.page = run / "report.html"
        self.actions = list(actions)
        self.texts: list[str] = []
        self.written: list[int] = []

    def __call__(self, _seconds: float) -> None:
        text = self.page.read_text(encoding="utf-8") if self.page.exists() else ""
        found = re.search(r'id="live"[^>]*>([^<]*)<', text)
        self.texts.append(found[1] if found else "")
        self.written.append(self.page.stat().st_mtime_ns if text else 0)
        if not self.actions:
            raise KeyboardInterrupt
        self.actions.pop(0)()


def test_page_follows_a_training_from_before_its_start_to_its_end(
    complete: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin() -> None:
        run.mkdir(parents=True)
        shutil.copy(complete / "recipe.yaml", run)
        lock(run)

    opened: list[bool] = []
    script = Script(
        run,
        begin,
        lambda: copy_until(complete, run, 40),
        lambda: None,
        lambda: copy_until(complete, run, 100),
        lambda: unlock(run),
    )
    page = follow_runs([run], run / "report.html", pause=script, on_first_page=lambda: opened.append(True))
    assert script.texts == ["", "Waiting for the first step.", "Step 40 of 100.", "Step 40 of 100.", "Step 100 of 100."]
    assert script.written[2] == script.written[3]  # nothing was new, so the page was not rewritten
    assert len(set(script.written)) == 4
    assert opened == [True]
    text = page.read_text(encoding="utf-8")
    assert 'id="live"' not in text
    assert "script-src 'unsafe-inline'\"" in text
    assert not (run / "report.live.js").exists()
    said = capsys.readouterr().err.replace("\n", " ")
    assert "which reloads itself. Ctrl-C stops." in said
    assert f"Waiting for {run}: no training has begun there." in said
    assert f"my has ended at step 100; {run / 'report.html'} is complete." in said


def test_killed_training_is_named_and_following_goes_on_until_stopped(
    complete: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_until(complete, run, 40)
    lock(run)
    news: list[dict] = []

    def read_news() -> None:
        news.append(json.loads((run / "report.live.js").read_text()[len("receiveNews(") : -3]))

    def kill() -> None:
        read_news()
        unlock(run)

    then = time.mktime((2026, 1, 2, 13, 4, 5, 0, 0, -1))
    for name in ("metrics.jsonl", "eval.jsonl"):
        os.utime(run / name, (then, then))
    script = Script(run, kill, read_news)
    with pytest.raises(KeyboardInterrupt):
        follow_runs([run], run / "report.html", pause=script)
    assert [(one["state"], one["text"]) for one in news] == [
        ("silent", "Step 40 of 100. No new step since 13:04:05."),
        (
            "silent",
            "Step 40 of 100. No new step since 13:04:05, and no process is training: it was stopped or killed.",
        ),
    ]
    assert news[0]["stamp"] == news[1]["stamp"]
    assert time.time() - news[1]["checked"] < 60
    assert 'id="live"' not in (run / "report.html").read_text(encoding="utf-8")
    said = capsys.readouterr().err.replace("\n", " ")
    assert "it was stopped or killed. Stopped following at step 40 of my" in said


def test_log_lines_do_not_make_the_images_again(complete: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_until(complete, run, 40)
    lock(run)
    calls: list[int] = []
    collect = follow.collect_image_parts
    monkeypatch.setattr(follow, "collect_image_parts", lambda *args: (calls.append(1), collect(*args))[1])

    def log_only() -> None:
        copied = (complete / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "metrics.jsonl").write_text("".join(copied[:25]))

    script = Script(run, log_only, lambda: copy_until(complete, run, 100))
    with pytest.raises(KeyboardInterrupt):
        follow_runs([run], run / "report.html", pause=script)
    assert script.texts == ["Step 40 of 100.", "Step 50 of 100.", "Step 100 of 100."]
    assert len(calls) == 2


def test_busy_page_is_rewritten_after_a_pause(complete: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LEAST_PAUSE_S", 1e6)
    monkeypatch.setattr(follow, "LARGEST_PAUSE_S", 1e6)
    copy_until(complete, run, 40)
    lock(run)
    script = Script(run, lambda: copy_until(complete, run, 100), lambda: None, lambda: unlock(run))
    # At the end, the page does not wait.
    follow_runs([run], run / "report.html", pause=script)
    assert script.texts == ["Step 40 of 100."] * 3
    assert "finished" in (run / "report.html").read_text(encoding="utf-8")


def test_run_of_another_machine_ends_when_it_is_quiet_at_its_last_step(complete: Path, run: Path) -> None:
    copy_until(complete, run, 100)
    (run / ".lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": 0}))

    def age() -> None:
        for name in ("metrics.jsonl", "eval.jsonl"):
            os.utime(run / name, (time.time() - 2 * follow.QUIET_S,) * 2)

    script = Script(run, lambda: None, age)
    follow_runs([run], run / "report.html", pause=script)
    assert script.texts == ["Step 100 of 100."] * 2
    assert script.actions == []


def test_several_runs_have_one_page_and_end_together(complete: Path, run: Path, tmp_path: Path) -> None:
    copy_until(complete, run, 40)
    lock(run)
    page = tmp_path / "both.html"
    script = Script(run, lambda: unlock(run))
    script.page = page
    with pytest.raises(KeyboardInterrupt):
        follow_runs([complete, run], page, pause=script)
    assert script.texts[0] == "complete: Step 100 of 100. my: Step 40 of 100."
    assert "<h1>complete, my</h1>" in page.read_text(encoding="utf-8")


def test_command_follows_and_returns_130_when_stopped(
    complete: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(report)
    copy_until(complete, run, 100)
    result = CliRunner().invoke(app, [str(run), "--follow"], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "finished" in (run / "report.html").read_text(encoding="utf-8")

    def stop(runs: list[Path], out: Path, **_options: object) -> None:
        assert (runs, out) == ([run], run / "report.html")
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "follow_runs", stop)
    assert CliRunner().invoke(app, [str(run), "--follow"]).exit_code == 130


def test_folder_that_can_never_be_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^report: expected a run folder, got .*file, which is a file; pass a folder"):
        follow_runs([tmp_path / "file"], tmp_path / "page.html")
    with pytest.raises(InputError, match="expected at least one run folder, got none"):
        follow_runs([], tmp_path / "page.html")


@pytest.mark.browser
def test_open_page_reloads_itself_and_keeps_the_readers_choices(browser: Chromium, complete: Path, run: Path) -> None:
    copy_until(complete, run, 40)
    lock(run)
    page = run / "report.html"
    seen: list[tuple] = []
    look = (
        "[document.querySelector('.pill').textContent, document.getElementById('live')?.dataset.state ?? 'no',"
        " Math.round(document.querySelector('main').getBoundingClientRect().top),"
        " document.querySelector('#recipe details').open, reportViewers[0].view.zoom,"
        " document.documentElement.dataset.errors]"
    )

    def read() -> None:
        browser.open(page)
        browser.run(
            "reportViewers[0].setZoom(8), document.querySelector('#recipe details').open = true, scrollTo(0, 700)"
        )
        seen.append(browser.run(look))
        copy_until(complete, run, 60)

    def wait_for(text: str) -> None:
        browser.wait(
            f"document.querySelector('.pill').textContent === '{text}' && document.documentElement.dataset.ready"
        )
        seen.append(browser.run(look))

    def reload_then_end() -> None:
        wait_for("unfinished, at step 60 of 100")
        copy_until(complete, run, 100)
        unlock(run)

    follow_runs([run], page, pause=Script(run, read, reload_then_end))
    wait_for("finished")
    assert [one[0] for one in seen] == ["unfinished, at step 40 of 100", "unfinished, at step 60 of 100", "finished"]
    assert [one[1] for one in seen] == ["running", "running", "no"]
    assert [one[3:] for one in seen] == [[True, 8, None]] * 3
    assert [one[2] for one in seen] == pytest.approx([seen[0][2]] * 3, abs=1.5)
