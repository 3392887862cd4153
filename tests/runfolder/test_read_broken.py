"""Run folders with broken files: what is readable is read, and each broken file is named."""

import json
from pathlib import Path

import pytest

from selfsr.runfolder.log import Jsonl, parse_line
from selfsr.runfolder.read import read_run_folders

LINE = {"step": 2, "loss": {"g": {"pixel": 0.5}}}


def read(folder: Path):
    return read_run_folders([folder])[0]


@pytest.mark.parametrize(
    "broken",
    [b"\xff\xfe\x00", b"[2]", b'{"step": "2"}', b'{"step": true}', b'{"step": -1}', b"{", b"9" * 5000, b"[" * 9000],
)
def test_a_broken_line_is_named_and_left_out(tmp_path: Path, broken: bytes) -> None:
    good = json.dumps(LINE).encode()
    (tmp_path / "metrics.jsonl").write_bytes(broken + b"\n" + good + b"\n")
    run = read(tmp_path)
    assert run.log == [LINE]
    assert "metrics.jsonl: unreadable line left out: 1." in run.notes
    (tmp_path / "metrics.jsonl").write_bytes(good + b"\n" + broken)
    assert (
        "The last line of metrics.jsonl is incomplete and left out; the run was probably killed."
        in read(tmp_path).notes
    )
    assert parse_line(broken) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1]", b"{", b"[" * 9000])
def test_a_broken_environment_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE) + "\n")
    (tmp_path / "environment.json").write_bytes(content)
    run = read(tmp_path)
    assert run.environment == {}
    assert "environment.json is not readable as JSON: versions and devices are unknown." in run.notes


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"[1]", b"a: [", b"a: !!int x", b"PK\x03\x04\0\0", b"9" * 5000]
)
def test_a_broken_recipe_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE) + "\n")
    (tmp_path / "recipe.yaml").write_bytes(content)
    run = read(tmp_path)
    assert run.recipe == {}
    assert "recipe.yaml is not readable as YAML: network, scale and planned steps are unknown." in run.notes


def test_a_log_is_cut_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "note": "a\u2028b"}, ensure_ascii=False).encode() + b"\n" for step in range(5)]
    path.write_bytes(b"".join(lines) + b'{"step": 9')
    assert Jsonl(path, 3).read() == [{"step": step, "note": "a\u2028b"} for step in range(4)]
    assert path.read_bytes() == b"".join(lines[:4])
    assert Jsonl(path, -1).read() == []
    assert path.read_bytes() == b""
