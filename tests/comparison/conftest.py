"""Two small models, images with ground truths, and a comparison of them."""

import pytest
import torch
import typer
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import compare as compare_verb
from selfsr.cli import evaluate as evaluate_verb
from selfsr.images.files import DecodedImage, write_image
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights.save import save_weights

app = typer.Typer()
app.command("compare", epilog=compare_verb.EPILOG)(compare_verb.compare)
app.command("evaluate", epilog=evaluate_verb.EPILOG)(evaluate_verb.evaluate)


def call(*args) -> "tuple[int, str, str]":
    """Run a command line; return exit status, stdout and stderr."""
    result = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="session")
def run_command():
    """Return `call`, which runs compare and evaluate."""
    return call


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Return three weights files: two for x2, with 8 and 4 features, and one for x4."""
    folder = tmp_path_factory.mktemp("models")
    for name, features, scale in (("wide", 8, 2), ("slim", 4, 2), ("four", 4, 4)):
        torch.manual_seed(features)
        save_weights(folder / f"{name}.safetensors", EdsrSpec(blocks=1, features=features).build(scale), {})
    return folder


@pytest.fixture(scope="session")
def hr(tmp_path_factory):
    """Return a folder with three ground truths; a side of the first is odd."""
    folder = tmp_path_factory.mktemp("data") / "mine"
    for index, (height, width) in enumerate(((61, 72), (56, 64), (72, 100))):
        write_image(folder / f"i{index}.png", DecodedImage(texture(index, height, width)))
    return folder
