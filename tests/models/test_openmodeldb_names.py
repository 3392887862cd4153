"""Tags and licenses that OpenModelDB does not know are named."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selfsr.cli import app
from selfsr.models.names import describe_unknown_names
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import save_weights


@pytest.mark.parametrize(
    ("tags", "license", "notes"),
    [
        (("photo", "video-frame"), "CC-BY-4.0", []),
        ((), "MIT OR Apache-2.0", []),
        ((), None, []),
        (("photos",), None, ["OpenModelDB has no tag photos; did you mean photo?"]),
        (
            (),
            "CC-BY-4",
            ["OpenModelDB shows the license CC-BY-4 as Unknown License; did you mean CC-BY-4.0?"],
        ),
        (
            (),
            "Zlib",
            [
                "OpenModelDB shows the license Zlib as Unknown License; it knows Apache-2.0, BSD-3-Clause, CC-BY-4.0, "
                "CC-BY-NC-4.0, CC-BY-NC-SA-4.0, CC-BY-SA-4.0, CC0-1.0, GPL-3.0-only, MIT, Unlicense, WTFPL."
            ],
        ),
        (
            (),
            "MIT AND Zlib",
            [
                "OpenModelDB expects a license of SPDX identifiers joined by OR only, got MIT AND Zlib; change the "
                "license, or its entry."
            ],
        ),
    ],
)
def test_names_that_openmodeldb_does_not_know(tags: tuple[str, ...], license: str | None, notes: list[str]) -> None:
    assert describe_unknown_names(tags, license) == notes


def test_unknown_tags_are_named_and_written(tmp_path: Path) -> None:
    source = tmp_path / "net.safetensors"
    save_weights(source, EdsrSpec(features=8, blocks=1).build(2), {})
    options = ("--author", "A", "--license", "MIT", "--tag", "water", "--tag", "photo")
    arguments = ["export", str(source), "-o", str(tmp_path / "out"), "--name", "2x-a", *options, "--device", "cpu"]
    done = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "OpenModelDB has no tag water; its tags are anime, anti-aliasing," in " ".join(done.output.split())
    assert json.loads((tmp_path / "out" / "2x-a.json").read_text())["tags"] == ["water", "photo"]
