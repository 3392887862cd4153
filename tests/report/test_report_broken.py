"""Reports of run folders with broken files and unusual names."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from selfsr.report import write_report
from selfsr.runfolder.read import read_run_folders

DEEP = "[" * 100_000


@pytest.fixture
def run(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A run folder of its own, to be damaged."""
    return make_run(tmp_path / "run", steps=50, samples=False)


@pytest.fixture
def run_with_samples(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", steps=50)


def report(folder: Path) -> str:
    return write_report([folder], folder / "page.html").read_text(encoding="utf-8")


def test_sample_of_a_name_that_is_not_utf8(run_with_samples: Path) -> None:
    sample = next(path for path in sorted((run_with_samples / "samples").iterdir()))
    try:
        sample.rename(run_with_samples / "samples" / os.fsdecode(b"set-caf\xe9"))
    except OSError:
        pytest.skip("the file system has UTF-8 names only")
    assert r"set-caf\udce9" in report(run_with_samples)


def test_samples_of_images_in_subfolders_are_shown(run_with_samples: Path) -> None:
    """Images of equal names in several folders have names with folders."""
    first = next(path for path in sorted((run_with_samples / "samples").glob("*/*")))
    (run_with_samples / "samples" / "val" / "000").mkdir(parents=True)
    first.rename(run_with_samples / "samples" / "val" / "000" / "0000.png")
    samples = read_run_folders([run_with_samples])[0].samples
    assert "val/000/0000.png" in samples
    assert samples["val/000/0000.png"].hr is not None
    assert "val/000/0000.png" in report(run_with_samples)


@pytest.mark.parametrize("name", ["recipe.yaml", "metrics.jsonl", "eval.jsonl", "environment.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\xff",
        b"[]",
        b"3\n",
        b'{"step": true}\n',
        b'{"step": -1}\n',
        b'{"step": 1e400}\n',
        b'{"step": 1' + b"0" * 5000 + b"}\n",
        b'{"step": 1, "sets": {"a": 3, "b": {"mean": 3}, "c": {"images": [1]}}, "score": "x", "bicubic": {"a": []}}\n',
        b'{"step": 1, "loss": {"g": "x"}, "steps_per_s": 1e-300, "lr": []}\n',
        DEEP.encode(),
        b"a: &a [x, x]\nb: &b [" + b"*a, " * 9 + b"]\n" + b"c: [" + b"*b, " * 9999 + b"]\n",
        b"&a [*a]\n",
        b"steps: !!timestamp 9\n",
    ],
)
def test_broken_file_is_left_out(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    assert "<title>" in report(run)


@pytest.mark.parametrize("name", ["recipe.yaml", "metrics.jsonl", "eval.jsonl", "environment.json"])
def test_folder_in_the_place_of_a_file_is_left_out(run: Path, name: str) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    assert "<title>" in report(run)


def test_alias_bomb_and_words_of_yaml_1_2(run: Path) -> None:
    (run / "recipe.yaml").write_text("name: no\nsteps: 6\n", encoding="utf-16")
    assert read_run_folders([run])[0].recipe == {"name": "no", "steps": 6}
    levels = [f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}, *a{k}, *a{k}, *a{k}, *a{k}, *a{k}, *a{k}]" for k in range(30)]
    (run / "recipe.yaml").write_text("\n".join(["a0: &a0 x", *levels]), encoding="utf-8")
    read = read_run_folders([run])[0]
    assert read.recipe == {}
    assert "recipe.yaml is not readable as YAML" in " ".join(read.notes)


def test_line_that_is_broken_costs_only_itself(run: Path) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"step": \xff}\n' + b"".join(lines[1:]))
    read = read_run_folders([run])[0]
    assert read.log == [json.loads(line) for line in lines]
    assert "metrics.jsonl: unreadable line left out: 2." in read.notes


def test_link_to_itself_is_no_run_folder(tmp_path: Path) -> None:
    from selfsr.errors import InputError

    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises((InputError, OSError)) as error:
        write_report([tmp_path / "loop"], tmp_path / "page.html")
    assert "loop" in str(error.value)
