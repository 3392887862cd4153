"""The models in the package: every file opens, is small, states the scores of its card, and upscales."""

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import selfsr
from factories import texture
from selfsr.evaluation.benchmark import evaluate_set
from selfsr.evaluation.metrics import METRICS, load_metrics
from selfsr.images.files import DecodedImage, image_to_tensor, read_image
from selfsr.images.resize import bicubic_lr, imresize
from selfsr.losses import checkerboard_loss
from selfsr.models import ModelCard, read_card, read_models
from selfsr.models.card import format_command, write_card
from selfsr.nets.weights.load import load_model
from selfsr.recipe import shipped_recipes

PACKAGE = Path(selfsr.__file__).parent
FILES = sorted((PACKAGE / "models" / "files").glob("*.safetensors"))
LARGEST_BYTES = 2**20
LARGEST_WHEEL_BYTES = 4 * 2**20

shipped = pytest.mark.parametrize("card", [read_card(path) for path in FILES], ids=[path.stem for path in FILES])


def test_the_package_has_models_for_x2_and_x4() -> None:
    assert {"photo_x2", "photo_x4"} <= {path.stem for path in FILES}
    cards = read_models()
    assert list(cards)[:2] == ["photo_x2", "photo_x4"]
    assert set(cards) == {path.stem for path in FILES}


@shipped
def test_the_file_is_small_and_in_float16(card: ModelCard) -> None:
    assert card.path.stat().st_size <= LARGEST_BYTES
    assert {tensor.dtype for tensor in load_file(card.path).values()} == {torch.float16}


@shipped
def test_the_card_is_that_of_the_metadata(card: ModelCard) -> None:
    text = card.path.with_suffix(".md").read_text(encoding="utf-8")
    assert text == write_card(card)
    # Not by the code that writes cards: the rows of its table are the numbers of the metadata.
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| set |", "| Set"))]
    header, *rows = lines
    titles = {metric.title: name for name, metric in METRICS.items()}
    assert {row[0] for row in rows} == set(card.scores) >= {"Set5", "Set14"}
    for name, *numbers in rows:
        for title, number in zip(header[1:], numbers, strict=True):
            metric = titles[re.sub(r" \(dB\)$", "", title)]
            assert float(number) == pytest.approx(
                card.scores[name][metric], abs=0.501 * 10 ** -METRICS[metric].decimals
            )
    assert format_command(card) in text
    assert card.license in text
    assert card.terms in text
    assert len(card.terms) > 100


@shipped
def test_the_recipe_is_the_shipped_one(card: ModelCard) -> None:
    def check(written: Any, recorded: Any, key: str) -> None:
        if isinstance(written, dict):
            for name, value in written.items():
                check(value, recorded[name], f"{key}.{name}")
        elif isinstance(written, str) and isinstance(recorded, float):
            assert float(written) == recorded, key  # YAML 1.1 reads 5e-4 as text
        else:
            assert written == recorded, key

    written = yaml.safe_load(shipped_recipes()[card.name].read_text())
    recorded = yaml.safe_load(card.recipe)
    # Names, places, and what does not change the weights.
    for part in ("name", "data", "evaluate", "checkpoints"):
        written.pop(part, None)
    check(written, recorded, card.name)
    assert card.method == recorded["method"]["kind"]
    assert card.scale == recorded["scale"]


@shipped
def test_a_tiny_image_is_upscaled(card: ModelCard) -> None:
    model = load_model(card.path)
    assert {tensor.dtype for tensor in model.net.state_dict().values()} == {torch.float32}
    assert model.scale == card.scale
    lr = image_to_tensor(DecodedImage(texture(3, 12, 16)))
    sr = model.upscale(lr)
    assert sr.shape == (1, 3, 12 * card.scale, 16 * card.scale)
    assert (sr - imresize(lr, card.scale)).abs().mean() < 0.1
    assert (bicubic_lr(sr, card.scale) - lr).abs().mean() < 0.05


@shipped
def test_the_scores_are_those_of_the_file(card: ModelCard, set5: list[Path]) -> None:
    model = load_model(card.path)
    means = evaluate_set(model.upscale, "Set5", set5, scale=card.scale, device=torch.device("cpu")).mean
    for metric in ("psnr_y", "ssim_y"):
        assert means[metric] == pytest.approx(card.scores["Set5"][metric], abs=2e-3)


@shipped
def test_no_pattern_repeats_with_the_scale(card: ModelCard, set5: list[Path]) -> None:
    """An earlier photo_gan_x4, trained without the checkerboard loss, had a visible grid and 1.31 gray levels here."""
    model, gray_levels = load_model(card.path), []
    for path in set5:
        image = image_to_tensor(read_image(path))
        height, width = (side // card.scale * card.scale for side in image.shape[2:])
        hr = image[:, :, :height, :width]
        sr = model.upscale(bicubic_lr(hr, card.scale))
        gray_levels.append(255 * checkerboard_loss(sr, hr, period_px=card.scale).item())
    assert sum(gray_levels) / len(gray_levels) < 0.4


def test_the_perceptual_scores_are_those_of_the_file(torch_home: Path, set5: list[Path]) -> None:
    card, device = read_models()["photo_gan_x4"], torch.device("cpu")
    extra = load_metrics(["lpips", "dists"], device, {})
    means = evaluate_set(load_model(card.path).upscale, "Set5", set5, scale=4, device=device, extra=extra).mean
    for metric in ("lpips", "dists"):
        assert means[metric] == pytest.approx(card.scores["Set5"][metric], abs=2e-3)


def test_importing_the_package_touches_no_model() -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import selfsr\n"
        "assert not [name for name in sys.modules if name.startswith('selfsr.models')]\n"
        "assert any('/selfsr/pacing/' in path for path in opened)\n"
        "assert not [path for path in opened if '/selfsr/models/' in path]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_package_fits_into_a_small_wheel() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in PACKAGE.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(PACKAGE))
    assert FILES[0].stat().st_size < len(buffer.getvalue()) < LARGEST_WHEEL_BYTES


# The least PSNR-Y on Set5 in dB; bicubic has 33.68 at x2 and 28.43 at x4.
LEAST_PSNR_Y = {"photo_x2": 37.4, "photo_x4": 31.2, "photo_gan_x4": 29.0}


@shipped
def test_a_model_is_as_good_as_promised(card: ModelCard) -> None:
    assert card.scores["Set5"]["psnr_y"] >= LEAST_PSNR_Y[card.name]
    if card.name == "photo_gan_x4":
        assert card.scores["Set5"]["lpips"] <= 0.15
