"""The part of the demonstration that compares the shipped models."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from factories import texture
from selfsr import demo
from selfsr.evaluation.benchmark import evaluate_set
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import list_images
from selfsr.models import read_models
from selfsr.nets.weights.load import load_model


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with an image larger than what is shown, and a smaller one."""
    write_image(tmp_path / "photos" / "large.png", DecodedImage(texture(1, 300, 264)))
    write_image(tmp_path / "photos" / "small.png", DecodedImage(texture(2, 60, 72)))
    return tmp_path / "photos"


def test_the_models_of_a_scale_are_compared_side_by_side(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    entries = demo.compare_models(4, pictures, tmp_path / "x4", device="cpu")
    names = [card.name for card in read_models().values() if card.scale == 4]
    assert [entry.name for entry in entries] == ["bicubic", *names]
    assert "photo_x4" in names

    card = read_models()["photo_x4"]
    model = load_model(card.path)
    paths = list_images(pictures)
    means = evaluate_set(model.upscale, "photos", paths, scale=4, device=torch.device("cpu")).mean
    saved = json.loads((tmp_path / "x4" / "scores.json").read_text())
    assert saved["photo_x4"] == pytest.approx(means)

    shown = read_image(tmp_path / "x4" / "large.png").pixels
    columns = len(names) + 2
    assert shown.shape == (256, 256 * columns, 3)
    assert np.array_equal(shown[:, -256:], texture(1, 300, 264)[22:278, 4:260])
    assert read_image(tmp_path / "x4" / "small.png").pixels.shape == (60, 72 * columns, 3)
    # The first columns are outputs, each different from its neighbors.
    parts = np.split(shown, columns, axis=1)
    assert all((left != right).any() for left, right in itertools.pairwise(parts))

    out, err = capsys.readouterr()
    assert "photo_x4" in out
    assert f"{means['psnr_y']:.2f} dB" in out
    assert "LPIPS is left out: its weights alexnet-owt-7be5be79.pth are not in" in err
    assert "LPIPS" not in out


def test_lpips_is_shown_where_its_weights_are(
    torch_home: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("torchmetrics")
    (pictures / "small.png").unlink()
    entries = demo.compare_models(4, pictures, tmp_path / "x4", device="cpu")
    saved = json.loads((tmp_path / "x4" / "scores.json").read_text())
    assert all(0 < saved[entry.name]["lpips"] < 1 for entry in entries)
    assert "LPIPS" in capsys.readouterr().out
