"""The dry run of a study tries each arm for a few steps: real training of tiny networks."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import study as command
from selfsr.images.files import DecodedImage, write_image
from selfsr.training import dryrun


@pytest.fixture
def dry_run(workspace: Path) -> Callable[..., Result]:
    """Return `dry_run(*options)`, which tries the study claim.yaml on small images."""
    for seed, folder in enumerate(("train", "train", "test")):
        write_image(workspace / "photos" / folder / f"{seed}.png", DecodedImage(texture(seed, 40, 48)))
    app = typer.Typer()
    app.command()(command.study)
    return lambda *options: CliRunner().invoke(app, ["claim.yaml", "--device", "cpu", "--dry-run", *options])


def test_each_arm_is_tried_once_and_nothing_is_written(dry_run, workspace: Path, monkeypatch) -> None:
    checked: list[object] = []
    check_folder = dryrun.check_folder
    monkeypatch.setattr(
        dryrun, "check_folder", lambda *args, **options: checked.append(args) or check_folder(*args, **options)
    )
    before = sorted(workspace.rglob("*"))
    done = dry_run("--set", "base.optimizers.g.lr=2e-3")
    assert done.exit_code == 0, done.output
    assert sorted(workspace.rglob("*")) == before
    assert done.output.count("Trying plain of tiny") == done.output.count("Trying paced of tiny") == 1
    assert "all arms: optimizers.g.lr: 2e-3" in done.output
    assert "80 steps remain, about " in done.output
    assert len(checked) == 1  # both arms have the same images


@pytest.mark.parametrize(
    ("setting", "arm", "message"),
    [
        ("base.crop_px=44", "plain", "the size of the crop, got 40 x 48"),
        ("base.evaluate.metrics=[pyiqa:musiq]", "plain", "pip install pyiqa"),
        ("base.start_from=photos/none.safetensors", "plain", "none.safetensors"),
    ],
)
def test_what_would_end_a_run_at_its_start_is_refused(
    dry_run, setting: str, arm: str, message: str, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    refused = dry_run("--set", setting)
    assert refused.exit_code == 1
    assert str(refused.exception).startswith(f"study: recipe tiny, arm {arm}: ")
    assert message in str(refused.exception)


def test_a_loss_that_diverges_names_its_arm(dry_run, workspace: Path) -> None:
    study = workspace / "claim.yaml"
    study.write_text(study.read_text().replace("method.terms.pixel.pace: {alpha: 4.0}", "optimizers.g.lr: 1000"))
    refused = dry_run()
    assert refused.exit_code == 1
    assert str(refused.exception).startswith("study: recipe tiny, arm paced: ")
    assert "NaN" in str(refused.exception) or "infinite" in str(refused.exception)
