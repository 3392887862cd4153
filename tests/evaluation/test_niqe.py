"""NIQE: an independent statement with scipy, the published value of baboon, and bad files of parameters."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.special import gamma

from selfsr.errors import InputError
from selfsr.evaluation.metrics import load_metrics
from selfsr.evaluation.niqe import NiqeParameters, niqe, read_niqe_parameters
from selfsr.images.files import image_to_tensor, read_image
from selfsr.images.resize import imresize

CPU = torch.device("cpu")


def make_parameters() -> dict[str, np.ndarray]:
    """Return parameters of the published names and shapes."""
    generator = np.random.default_rng(1)
    factor = generator.normal(size=(36, 36))
    side = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window = np.outer(side, side)
    return {
        "mu_pris_param": generator.normal(1, 1, (1, 36)),
        "cov_pris_param": factor @ factor.T / 36 + np.eye(36),
        "gaussian_window": window / window.sum(),
    }


def make_image(height: int, width: int) -> torch.Tensor:
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(3))
    return (imresize(noise, size=(height, width)).clamp(0, 1) * 255).round() / 255


def fit(samples: np.ndarray) -> tuple[float, float, float]:
    grid = np.linspace(0.2, 10, 9801)
    left, right = (np.sqrt(np.mean(samples[side] ** 2)) for side in (samples < 0, samples > 0))
    ratio = left / right
    r = np.abs(samples).mean() ** 2 / (samples**2).mean() * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    alpha = grid[np.abs(gamma(2 / grid) ** 2 / gamma(1 / grid) / gamma(3 / grid) - r).argmin()]
    scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return alpha, left * scale, right * scale


def measure(patch: np.ndarray) -> list[float]:
    alpha, left, right = fit(patch)
    features = [alpha, (left + right) / 2]
    side = np.arange(len(patch))
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbor = patch[np.ix_((side - down) % len(side), (side - across) % len(side))]
        alpha, left, right = fit(patch * neighbor)
        features += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
    return features


def niqe_by_scipy(sr: torch.Tensor, parameters: dict[str, np.ndarray]) -> float:
    rgb = sr[0].double().permute(1, 2, 0).numpy()
    y = np.round(rgb @ np.array([65.481, 128.553, 24.966]) + 16)
    rows, columns = (side // 96 for side in y.shape)
    y = y[: rows * 96, : columns * 96]
    tables = []
    for side in (96, 48):
        mu = correlate(y, parameters["gaussian_window"], mode="nearest")
        variance = correlate(y**2, parameters["gaussian_window"], mode="nearest") - mu**2
        z = (y - mu) / (np.sqrt(np.abs(variance)) + 1)
        patches = [z[i * side :, j * side :][:side, :side] for j in range(columns) for i in range(rows)]
        tables.append(np.array([measure(patch) for patch in patches]))
        y = imresize(torch.from_numpy(y)[None, None], scale=0.5)[0, 0].numpy()
    table = np.concatenate(tables, axis=1)
    difference = parameters["mu_pris_param"][0] - table.mean(axis=0)
    pooled = (parameters["cov_pris_param"] + np.cov(table, rowvar=False)) / 2
    return math.sqrt(difference @ np.linalg.solve(pooled, difference))


def as_parameters(arrays: dict[str, np.ndarray]) -> NiqeParameters:
    mean, covariance, window = (torch.from_numpy(array) for array in arrays.values())
    return NiqeParameters(mean[0], covariance, window)


def test_niqe_equals_an_independent_statement() -> None:
    arrays, image = make_parameters(), make_image(200, 300)
    assert niqe(image, as_parameters(arrays)) == pytest.approx(niqe_by_scipy(image, arrays), rel=1e-9)


def test_niqe_of_baboon_is_the_published_one(torch_home: Path, set14: list[Path]) -> None:
    baboon = image_to_tensor(read_image(set14[0]))
    assert baboon.shape[2:] == (480, 500)
    parameters = read_niqe_parameters()
    # BasicSR's 5.7296 is in float32, in which its code gives 5.72958; in float64 the same statement gives 5.72996.
    assert niqe(baboon, parameters) == pytest.approx(5.7296, abs=5e-4)
    blurred = imresize(imresize(baboon, scale=1 / 4), size=(480, 500)).clamp(0, 1)
    assert niqe(blurred, parameters) > 7


def test_niqe_without_two_patches_that_are_not_flat_is_undefined() -> None:
    parameters = as_parameters(make_parameters())
    assert math.isnan(niqe(make_image(191, 100), parameters))
    assert math.isfinite(niqe(make_image(192, 100), parameters))
    assert math.isnan(niqe(torch.full((1, 3, 192, 192), 0.5), parameters))
    half = make_image(96 * 3, 96)
    half[:, :, :96] = 0.5
    assert math.isfinite(niqe(half, parameters))


def test_parameters_are_found_next_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "metrics" / "niqe_pris_params.npz"
    with pytest.raises(InputError) as error:
        load_metrics(["niqe"], CPU, {})
    assert str(error.value) == (
        f"metrics: expected the parameters of niqe in {path}, got none; put the file niqe_pris_params.npz of BasicSR "
        "(basicsr/metrics in its repository) there, or leave the metric out."
    )
    path.parent.mkdir()
    np.savez(path, **make_parameters())
    image = make_image(96, 192)
    expected = niqe(image, as_parameters(make_parameters()))
    assert load_metrics(["niqe"], CPU, {})["niqe"](image, torch.zeros_like(image)) == expected


def test_a_bad_file_of_parameters_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "niqe_pris_params.npz"
    for content in (b"", b"no archive", b"PK\x03\x04 cut", pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"^metrics: expected the parameters of niqe in .* no archive of arrays; "):
            read_niqe_parameters(path)
    good = make_parameters()
    for name, bad, got in (
        ("mu_pris_param", np.zeros(36), r"float64 \[36\]"),
        ("cov_pris_param", np.zeros((36, 35)), r"float64 \[36, 35\]"),
        ("gaussian_window", np.zeros((7, 7), int), r"int64 \[7, 7\]"),
    ):
        np.savez(path, **{**good, name: bad})
        with pytest.raises(InputError, match=rf"expected {name} of shape \[.*, got {got}; use BasicSR's"):
            read_niqe_parameters(path)
    np.savez(path, **{**good, "mu_pris_param": np.full((1, 36), np.nan)})
    with pytest.raises(
        InputError, match=r"expected finite numbers of mu_pris_param in .*, got NaN or infinity; download"
    ):
        read_niqe_parameters(path)
    np.savez(path, mu_pris_param=good["mu_pris_param"])
    with pytest.raises(InputError, match=r"expected cov_pris_param of shape .*, got none; use"):
        read_niqe_parameters(path)
