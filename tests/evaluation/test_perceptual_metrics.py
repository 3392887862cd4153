"""Self-similarity distance, LPIPS and DISTS: the definition, networks of the same layout, and missing weights."""

import json
import math
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from selfsr.cli import app
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import SetScores, evaluate_set
from selfsr.evaluation.metrics import load_metrics
from selfsr.evaluation.perceptual import self_similarity_distance
from selfsr.images.files import DecodedImage, image_to_tensor, read_image, write_image
from selfsr.losses.features import ARCHITECTURES
from selfsr.masks import edge_mask
from selfsr.selfsim import reference

CPU = torch.device("cpu")


def pair(height: int = 30, width: int = 34) -> tuple[torch.Tensor, torch.Tensor]:
    c, i, j = torch.meshgrid(*(torch.arange(n).float() for n in (3, height, width)), indexing="ij")
    hr = 0.5 + 0.3 * torch.sin(0.7 * i + 1.3 * c) * torch.cos(0.45 * j - 0.6 * c) + 0.15 * torch.sin(0.11 * i * j)
    return (hr + 0.06 * torch.sin(1.9 * i - 0.8 * j + c)).clamp(0, 1)[None], hr[None]


def test_self_similarity_distance_is_the_definition() -> None:
    sr, hr = pair()
    mask = edge_mask(hr)
    l1, kl = reference.loss_parts(
        sr.double(), hr.double(), mask, search_px=25, window_px=9, sigma=0.004, normalize=True
    )
    assert self_similarity_distance(sr, hr) == pytest.approx(1000 * float(l1 + kl), rel=1e-5)
    assert self_similarity_distance(hr, hr) == 0


def test_self_similarity_distance_without_edges_is_nan_and_skipped() -> None:
    assert math.isnan(self_similarity_distance(*pair(12, 40)))
    flat = torch.full((1, 3, 30, 30), 0.5)
    assert math.isnan(self_similarity_distance(flat, flat))
    scores = SetScores("set", {"a": {"self_similarity": 2.0}, "b": {"self_similarity": math.nan}})
    assert scores.mean == {"self_similarity": 2.0}
    assert scores.as_json()["images"]["b"] == {"self_similarity": None}
    assert SetScores("set", {"b": {"self_similarity": math.nan}}).as_json()["mean"] == {"self_similarity": None}


def test_extra_metrics_get_8_bit_images_without_border(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 26, 3)).astype(np.uint8)
    write_image(tmp_path / "a.png", DecodedImage(pixels))
    seen = []

    def spy(sr: torch.Tensor, hr: torch.Tensor) -> float:
        seen.append((sr, hr))
        return 7.0

    found = evaluate_set(
        lambda lr: lr.repeat_interleave(2, 2).repeat_interleave(2, 3) * 1.3,
        "set",
        [tmp_path / "a.png"],
        scale=2,
        device=CPU,
        extra={"spy": spy},
    )
    assert found.mean["spy"] == 7.0
    ((sr, hr),) = seen
    assert sr.shape == hr.shape == (1, 3, 20, 22)
    torch.testing.assert_close(hr[0].permute(1, 2, 0) * 255, torch.from_numpy(pixels[2:-2, 2:-2]).float())
    assert sr.max() <= 1
    torch.testing.assert_close(sr * 255, (sr * 255).round())


@pytest.mark.parametrize(("name", "network"), [("lpips", "alexnet"), ("dists", "vgg16")])
def test_loaded_metrics_score_with_random_networks(
    name: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("torchvision.models")
    pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    layers = {
        "alexnet": lambda: models.alexnet(num_classes=1).features,
        "vgg16": lambda: models.vgg.make_layers(models.vgg.cfgs["D"]),
    }[network]()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = ARCHITECTURES[network].weights.path
    path.parent.mkdir(parents=True)
    torch.save({f"features.{key}": tensor for key, tensor in layers.state_dict().items()}, path)
    score = load_metrics([name], CPU, {})[name]
    sr, hr = pair(64, 72)
    assert score(hr, hr) == pytest.approx(0, abs=1e-5)
    assert score(sr, hr) > 1e-4
    assert score(sr, hr) == pytest.approx(score(hr, sr), rel=1e-4)
    small = pair(20, 40)
    assert math.isnan(score(*small)) == (name == "lpips")  # AlexNet needs 31 px


@pytest.mark.parametrize(("name", "network"), [("lpips", "alexnet"), ("dists", "vgg16")])
def test_load_metrics_without_weights_is_one_sentence(
    name: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchmetrics")

    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    weights = ARCHITECTURES[network].weights
    with pytest.raises(
        InputError, match=rf"^metrics: \w+: {weights.title}: expected the weights file {weights.file} .*no network"
    ):
        load_metrics([name], CPU, {})


def test_published_scores_of_the_authors_examples(torch_home: Path) -> None:
    def read(name: str) -> torch.Tensor:
        return image_to_tensor(read_image(torch_home / "metrics" / "examples" / f"{name}.png"))

    scores = load_metrics(["lpips", "dists"], CPU, {})
    assert scores["lpips"](read("lpips_ex_p0"), read("lpips_ex_ref")) == pytest.approx(0.722, abs=5e-4)
    assert scores["lpips"](read("lpips_ex_p1"), read("lpips_ex_ref")) == pytest.approx(0.138, abs=5e-4)
    assert scores["dists"](read("dists_r0"), read("dists_r1")) == pytest.approx(0.3347, abs=5e-5)


def test_load_metrics_of_unknown_name_lists_the_known_ones() -> None:
    message = r"expected some of self_similarity, lpips, dists, niqe, .*, got 'nique'; did you mean niqe\?"
    with pytest.raises(InputError, match=message):
        load_metrics(["nique"], CPU, {})


def test_evaluate_with_metric_writes_score_and_protocol(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 44, 3)).astype(np.uint8)
    write_image(tmp_path / "set" / "a.png", DecodedImage(pixels))
    arguments = ["--bicubic", "--scale", "2", "--metric", "self_similarity", "--out", str(tmp_path / "s.json")]
    result = CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path / "set"), *arguments])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["results"][0]["sets"]["set"]["mean"]["self_similarity"] > 0
    assert "search 25, window 9" in record["protocol"]["self_similarity"]
