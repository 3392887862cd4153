"""NIQE: the distance of an image's statistics from those of pristine images. It needs no ground truth.

Source: Mittal, Soundararajan, Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal Processing
Letters 2013, and the authors' MATLAB code with its parameters. The conventions of BasicSR, by which super-resolution
papers report it: Y in studio range, rounded.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.evaluation.kinds import ImageMetric
from selfsr.images.color import rgb_to_y_studio
from selfsr.images.resize import imresize

PARAMETERS_FILE = "niqe_pris_params.npz"

_PATCH_PX = 96
# Two features of the pixels and four of the products with the neighbors in four directions, at two scales.
_FEATURES = 2 * (2 + 4 * 4)
_SHAPES = {
    "mu_pris_param": (1, _FEATURES),
    "cov_pris_param": (_FEATURES, _FEATURES),
    "gaussian_window": (7, 7),
}
# By rows and columns: right, below, below right, below left.
_NEIGHBORS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class NiqeParameters:
    """The statistics of pristine images, in float64.

    Attributes:
        mean: mean of the features, `[36]`.
        covariance: covariance of the features, `[36, 36]`.
        window: weights of the pixels around a pixel, `[7, 7]`, which sum to 1.
    """

    mean: Tensor
    covariance: Tensor
    window: Tensor


def read_niqe_parameters(path: Path | None = None) -> NiqeParameters:
    """Read the published parameters of NIQE.

    Args:
        path: the file `niqe_pris_params.npz`, as BasicSR has it; None takes it from the folder `metrics` next to
            torch.hub's folder: `~/.cache/torch/metrics`, or `metrics` in TORCH_HOME.

    Raises:
        InputError: the file does not exist, or has no parameters of these shapes.
    """
    if path is None:
        path = Path(torch.hub.get_dir()).parent / "metrics" / PARAMETERS_FILE
    if not path.is_file():
        raise InputError(
            f"metrics: expected the parameters of niqe in {path}, got none; put the file {PARAMETERS_FILE} of BasicSR "
            "(basicsr/metrics in its repository) there, or leave the metric out."
        )
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"metrics: expected the parameters of niqe in {path}, got a file that is no archive of arrays; download "
            f"{PARAMETERS_FILE} again."
        ) from error
    for name, shape in _SHAPES.items():
        got = "none" if name not in arrays else f"{arrays[name].dtype} {list(arrays[name].shape)}"
        if name not in arrays or arrays[name].shape != shape or arrays[name].dtype.kind != "f":
            raise InputError(
                f"metrics: expected {name} of shape {list(shape)} in {path}, got {got}; "
                f"use BasicSR's {PARAMETERS_FILE}."
            )
        if not np.isfinite(arrays[name]).all():
            raise InputError(
                f"metrics: expected finite numbers of {name} in {path}, got NaN or infinity; download "
                f"{PARAMETERS_FILE} again."
            )
    mean, covariance, window = (torch.from_numpy(arrays[name].astype(np.float64)) for name in _SHAPES)
    return NiqeParameters(mean[0], covariance, window)


def niqe(sr: Tensor, parameters: NiqeParameters) -> float:
    """Return the distance of an image's statistics from those of pristine images; lower is better.

    With m and S the mean and the covariance of 36 features of the image's patches of 96x96 pixels, and m_0 and S_0
    those of the pristine images,

        sqrt( (m_0 - m)^T ((S_0 + S) / 2)^-1 (m_0 - m) ).

    The patches do not overlap and are all used; rows and columns that remain at the bottom and right are left out. The
    second scale is half the size, by bicubic with antialiasing. Computed in float64 on the CPU.

    Args:
        sr: RGB `[1, 3, H, W]` in [0, 1].
        parameters: the published parameters.

    Returns:
        The distance; NaN if the image has fewer than two patches, or fewer than two that are not flat.
    """
    luma = rgb_to_y_studio(sr.detach().cpu().double() * 255).round()
    rows, columns = (side // _PATCH_PX for side in luma.shape[2:])
    if rows * columns < 2:
        return float("nan")
    luma = luma[..., : rows * _PATCH_PX, : columns * _PATCH_PX]
    features: list[Tensor] = []
    for patch_px in (_PATCH_PX, _PATCH_PX // 2):
        patches = functional.unfold(_normalize_locally(luma, parameters.window), patch_px, stride=patch_px)
        features.append(_measure_patches(patches[0].T.reshape(-1, patch_px, patch_px)))
        luma = imresize(luma, scale=0.5)
    table = torch.cat(features, dim=1)
    complete = table[~table.isnan().any(dim=1)]
    if len(complete) < 2:
        return float("nan")
    difference = parameters.mean - table.nanmean(dim=0)
    pooled = (parameters.covariance + complete.T.cov()) / 2
    return float((difference @ torch.linalg.pinv(pooled) @ difference).sqrt())


def load_niqe(device: torch.device) -> ImageMetric:  # noqa: ARG001 - metrics share one signature
    """Load NIQE with its published parameters.

    Raises:
        InputError: the parameters are not available.
    """
    parameters = read_niqe_parameters()
    return lambda sr, hr: niqe(sr, parameters)  # noqa: ARG005 - it needs no ground truth


def _normalize_locally(luma: Tensor, window: Tensor) -> Tensor:
    """Return (I - mu) / (sigma + 1) with the weighted moments around each pixel, the border repeated (eq. 1 to 3)."""
    half = window.shape[0] // 2

    def average(image: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(image, (half,) * 4, mode="replicate"), window[None, None])

    mu = average(luma)
    sigma = (average(luma * luma) - mu * mu).abs().sqrt()
    return (luma - mu) / (sigma + 1)


def _measure_patches(patches: Tensor) -> Tensor:
    """Return 18 features of each patch: `[N, side, side]` to `[N, 18]`."""
    alpha, left, right = _fit_distribution(patches)
    features = [alpha, (left + right) / 2]
    for neighbor in _NEIGHBORS:  # of the same patch, which continues at its other side
        alpha, left, right = _fit_distribution(patches * patches.roll(neighbor, dims=(1, 2)))
        mean = (right - left) * _gamma_ratio(2 / alpha, 1 / alpha)
        features += [alpha, mean, left, right]
    return torch.stack(features, dim=1)


def _fit_distribution(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit asymmetric generalized Gaussians by their moments (eq. 5 to 7).

    Args:
        patches: samples, `[N, side, side]`.

    Returns:
        Shape alpha, left and right scale beta, `[N]` each. A scale is NaN where no sample is on its side.
    """
    x = patches.flatten(1)
    left, right = (
        ((x * x * side).sum(dim=1) / side.sum(dim=1)).sqrt() for side in ((x < 0).double(), (x > 0).double())
    )
    ratio = left / right
    r = x.abs().mean(dim=1) ** 2 / (x * x).mean(dim=1)
    r = r * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    # The grid of the published code, in whose steps alpha is fitted.
    grid = 0.2 + 0.001 * torch.arange(9801, dtype=torch.float64)
    table = torch.exp(2 * (2 / grid).lgamma() - (1 / grid).lgamma() - (3 / grid).lgamma())
    alpha = grid[(table - r[:, None]).square().argmin(dim=1)]
    scale = _gamma_ratio(1 / alpha, 3 / alpha).sqrt()
    return alpha, left * scale, right * scale


def _gamma_ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return Gamma(a) / Gamma(b)."""
    return torch.exp(a.lgamma() - b.lgamma())
