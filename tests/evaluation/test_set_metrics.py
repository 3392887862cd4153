"""FID and KID with a small network in place of Inception, metrics through a stand-in for pyiqa, and their mistakes."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from programs import run_python
from selfsr.cli import app
from selfsr.errors import InputError
from selfsr.evaluation import inception, with_pyiqa
from selfsr.evaluation.benchmark import evaluate_set
from selfsr.evaluation.metrics import METRICS, check_set_size, list_extra_metrics, load_metrics
from selfsr.images.files import DecodedImage, write_image

CPU = torch.device("cpu")


class ColorMoments(nn.Module):
    """Means and deviations of the colors, as a network of torchmetrics: uint8 images to `[N, 6]`."""

    num_features = 6

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        flat = images.float().flatten(2) / 255
        return torch.cat((flat.mean(dim=2), flat.std(dim=2)), dim=1)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> ColorMoments:
    pytest.importorskip("torchmetrics")
    network = ColorMoments()
    monkeypatch.setattr(inception, "load_inception", lambda name: network)
    return network


def make_images(folder: Path, number: int) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for index in range(number):
        low, high = sorted(generator.integers(0, 256, 2))
        pixels = generator.integers(low, high + 1, (24, 26, 3)).astype(np.uint8)
        paths.append(folder / f"{index}.png")
        write_image(paths[-1], DecodedImage(pixels))
    return paths


def collect(paths: list[Path], names: list[str], network: nn.Module) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Return the scores of a set by `evaluate_set`, and the features of its outputs and ground truths."""
    pairs = []
    loaded = {**load_metrics(names, CPU, {}), "spy": lambda sr, hr: pairs.append((sr, hr)) or 0.0}
    scores = evaluate_set(
        lambda lr: lr.repeat_interleave(2, 2).repeat_interleave(2, 3) * 0.8,
        "set",
        paths,
        scale=2,
        device=CPU,
        extra=loaded,
    )
    sr, hr = (
        np.concatenate([network((pair[k] * 255).round().byte()).numpy() for pair in pairs]).astype(float)
        for k in range(2)
    )
    return scores.mean, sr, hr


def test_fid_and_kid_equal_their_definitions(small_network, tmp_path: Path) -> None:
    mean, x, y = collect(make_images(tmp_path, 9), ["fid", "kid"], small_network)
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    fid = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root)
    assert mean["fid"] == pytest.approx(fid, rel=1e-4)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / 6 + 1) ** 3

    pairs = len(x) * (len(x) - 1)
    kid = (kernel(x, x).sum() - np.trace(kernel(x, x))) / pairs + (kernel(y, y).sum() - np.trace(kernel(y, y))) / pairs
    assert mean["kid"] == pytest.approx(kid - 2 * kernel(x, y).mean(), rel=1e-3, abs=1e-6)


def test_sets_do_not_mix_and_no_random_numbers_are_drawn(small_network, tmp_path: Path) -> None:
    first, second = make_images(tmp_path / "a", 4), make_images(tmp_path / "b", 7)[4:]
    metrics = load_metrics(["fid", "kid"], CPU, {})
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)

    def score(paths: list[Path]) -> dict[str, float]:
        return evaluate_set(
            lambda lr: lr.repeat_interleave(2, 2).repeat_interleave(2, 3) * 0.8,
            "set",
            paths,
            scale=2,
            device=CPU,
            extra=metrics,
        ).mean

    before = score(second)
    assert score(first) != before
    assert score(second) == before
    assert torch.equal(torch.rand(2), expected)


def test_scores_of_a_set_are_in_the_mean_and_not_in_the_images(small_network, tmp_path: Path) -> None:
    make_images(tmp_path / "set", 3)
    out = tmp_path / "s.json"
    arguments = ["--bicubic", "--scale", "2", "--metric", "fid", "--per-image", "--out", str(out), "--device", "cpu"]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["evaluate", "--data", str(tmp_path / "set"), *arguments])
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    scores = record["results"][0]["sets"]["set"]
    assert scores["mean"]["fid"] > 0
    assert all("fid" not in image for image in scores["images"].values())
    assert record["protocol"]["better"]["fid"] == "lower"
    assert "kid" not in record["protocol"]
    heading, *rows = (line.split() for line in result.stdout.splitlines())
    assert heading[-1] == "FID"
    assert [row[-1] for row in rows[:3]] == ["-"] * 3
    assert rows[3][-1] == f"{scores['mean']['fid']:.2f}"
    assert "Lower is better: FID." in result.stdout


def test_a_set_of_one_image_is_refused_before_the_first_image(small_network, tmp_path: Path, monkeypatch) -> None:
    make_images(tmp_path / "many", 2)
    make_images(tmp_path / "one", 1)
    monkeypatch.setattr("selfsr.evaluation.benchmark.score_image", lambda *_: pytest.fail("an image was scored"))
    monkeypatch.setattr(inception, "load_inception", lambda _: pytest.fail("the network was loaded"))
    data = ["--data", str(tmp_path / "many"), "--data", str(tmp_path / "one")]
    with pytest.raises(InputError) as error:
        CliRunner().invoke(
            app,
            ["evaluate", *data, "--bicubic", "--scale", "2", "--metric", "kid", "--device", "cpu"],
            catch_exceptions=False,
            standalone_mode=False,
        )
    sentence = (
        "metrics: expected at least 2 images in the set one for kid, which compares sets and not images, got 1; "
        "add images, or leave the metric out."
    )
    assert str(error.value) == sentence
    with pytest.raises(InputError, match="in the set one for fid"):
        load_metrics(["fid"], CPU, {"many": 2, "one": 1})
    with pytest.raises(InputError, match="in the set one for kid"):
        check_set_size(["lpips", "kid"], "one", 1)
    check_set_size(["lpips", "niqe"], "one", 1)


def test_a_score_of_fewer_than_two_images_is_undefined(small_network) -> None:
    for metric in load_metrics(["fid", "kid"], CPU, {}).values():
        score = metric.start()
        image = torch.rand(1, 3, 20, 20)
        score.add(image, image)
        assert math.isnan(score.compute())
        score.add(image, image)
        assert math.isfinite(score.compute())


def test_fid_without_its_network_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InputError, match=r'^metrics: expected the packages .* for fid, .* "selfsr\[metrics\]"'):
        load_metrics(["fid"], CPU, {})
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*args, **kwargs) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    file = "weights-inception-2015-12-05-6726825d.pth"
    with pytest.raises(
        InputError, match=rf"^metrics: \w+: Inception v3: expected the weights file {file} in .*\(no network\); put"
    ):
        load_metrics(["kid"], CPU, {})
    path = tmp_path / "hub" / "checkpoints" / file
    torch.save(torch.nn.Linear(2, 2), path)  # a pickle that names a class
    with pytest.raises(InputError, match=r"cannot be read \(it is damaged, or no file of plain tensors\);"):
        load_metrics(["fid"], CPU, {})


@pytest.fixture
def fake_pyiqa(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Return the calls of a module in place of pyiqa."""
    calls: list[tuple] = []

    def create_metric(name: str, device: torch.device) -> object:
        if name == "maniqa":
            print("Loading pretrained model")
            raise AssertionError("no weights\nat all")
        mode = "FR" if name == "topiq_fr" else "NR"

        class FakeMetric:
            lower_better, metric_mode = name == "clipiqa", mode

            def __call__(self, *images: Tensor) -> Tensor:
                print("noise on stdout")
                if name == "topiq_nr":
                    raise ZeroDivisionError("no patch")
                calls.append((name, len(images), images[0].dtype))
                return images[0].mean()[None, None]

        return FakeMetric()

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    with_pyiqa._print_license.cache_clear()
    return calls


def test_pyiqa_metrics_get_the_output_and_its_license_is_printed_once(fake_pyiqa, tmp_path: Path) -> None:
    make_images(tmp_path / "set", 2)
    out = tmp_path / "s.json"
    metrics = ["--metric", "pyiqa:musiq", "--metric", "pyiqa:topiq_fr", "--out", str(out), "--device", "cpu"]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["evaluate", "--data", str(tmp_path / "set"), "--bicubic", "--scale", "2", *metrics]
    )
    assert result.exit_code == 0, result.output
    assert fake_pyiqa == [("musiq", 1, torch.float32), ("topiq_fr", 2, torch.float32)] * 2
    assert result.stderr.count("PolyForm Noncommercial License 1.0.0") == 1
    assert "noise" not in result.stdout
    mean = json.loads(out.read_text())["results"][0]["sets"]["set"]["mean"]
    assert 0 < mean["pyiqa:musiq"] == mean["pyiqa:topiq_fr"] < 1
    assert result.stdout.splitlines()[0].split()[-2:] == ["MUSIQ", "TOPIQ-FR"]


def test_pyiqa_is_imported_only_if_it_is_asked_for() -> None:
    program = "import sys, selfsr.cli.evaluate, selfsr.evaluation.metrics as m; print('pyiqa' in sys.modules)"
    done = run_python("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n"


def test_an_image_that_pyiqa_cannot_score_is_one_sentence(fake_pyiqa, tmp_path: Path) -> None:
    make_images(tmp_path / "set", 2)
    result = CliRunner().invoke(
        app, ["evaluate", "--data", str(tmp_path / "set"), "--bicubic", "--scale", "2", "--metric", "pyiqa:topiq_nr"]
    )
    assert result.exit_code == 1
    assert result.output.count("got an error of pyiqa (no patch); leave the image or the metric out.") == 2
    assert "Traceback" not in result.output


def test_pyiqa_that_is_missing_broken_or_different_is_one_sentence(fake_pyiqa, tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"^metrics: pyiqa:maniqa could not be loaded by pyiqa \(no weights at all\);"):
        load_metrics(["pyiqa:maniqa"], CPU, {})
    with pytest.raises(InputError, match=r"pyiqa's clipiqa to be better when higher, .* got lower_better=True"):
        load_metrics(["pyiqa:clipiqa"], CPU, {})
    monkeypatch.delitem(sys.modules, "pyiqa")
    (tmp_path / "pyiqa.py").write_text("raise RuntimeError('compiled for another version')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"^metrics: pyiqa:musiq needs .* cannot be imported \(compiled for another"):
        load_metrics(["pyiqa:musiq"], CPU, {})
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(InputError, match=r"^metrics: pyiqa:musiq needs the package pyiqa, .* pip install pyiqa if its"):
        load_metrics(["pyiqa:musiq"], CPU, {})
    with pytest.raises(InputError, match=r"expected some of self_similarity, .*pyiqa:musiq, .* got 'pyiqa:psnr'"):
        load_metrics(["pyiqa:psnr"], CPU, {})


def test_every_metric_says_which_value_is_better() -> None:
    assert {name for name in list_extra_metrics() if METRICS[name].better == "lower"} == {
        "self_similarity",
        "lpips",
        "dists",
        "niqe",
        "fid",
        "kid",
    }
