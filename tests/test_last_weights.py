"""Commands report that a run folder stands for its last weights, since it has no best ones."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import app
from selfsr.images.files import DecodedImage, write_image
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import save_weights

NOTE = "has no weights/best; using weights/last.safetensors."


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with last weights only, in the working directory, next to a folder with an image."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    folder = Path("runs/new")
    (folder / "weights").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: new\n")
    save_weights(folder / "weights" / "last.safetensors", EdsrSpec(features=8, blocks=1).build(2), {})
    write_image(tmp_path / "in" / "a.png", DecodedImage(texture(0, 48, 40)))
    return folder


def run(*options: str | Path) -> str:
    result = CliRunner().invoke(app, [*map(str, options), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("upscale", "in/a.png", "-o", "out.png", "-m"), ()),
        (("evaluate",), ("--data", "in")),
        (("compare", "photo_x2"), ("--data", "in", "-o", "page.html")),
        (("export",), ("-o", "exported", "--name", "2x-new", "--author", "A", "--license", "MIT")),
    ],
)
def test_the_note_is_printed_until_the_run_has_best_weights(
    run_folder: Path, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert f"Note: {run_folder} {NOTE}" in run(*before, run_folder, *after)
    last = run_folder / "weights" / "last.safetensors"
    last.with_name("best.safetensors").write_bytes(last.read_bytes())
    again = () if before[0] in ("evaluate", "compare") else ("--overwrite",)
    assert NOTE not in run(*before, run_folder, *after, *again)
    assert NOTE not in run(*before, last, *after, *again)
