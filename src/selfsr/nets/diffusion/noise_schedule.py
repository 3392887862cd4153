"""The noise process of a pretrained diffusion model: variance preserving (Stable Diffusion 1 and 2) or a flow (3).

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020; Salimans and Ho, "Progressive Distillation",
ICLR 2022, for v; Liu et al., "Flow Straight and Fast", ICLR 2023, for flows.
"""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selfsr.errors import InputError, shorten

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
# The bound of one step's beta in the cosine schedule of Nichol and Dhariwal, "Improved DDPM", ICML 2021.
_LARGEST_BETA = 0.999


@dataclass(frozen=True)
class NoiseSchedule:
    """Tables of a noise process over the index i from 0 (little noise) to T - 1, in float64.

    With latent x0 and standard normal noise e (docs/diffusion.md, eq. 14):

        x_i = alpha_i x0 + sigma_i e

    Attributes:
        alpha: the share of x0; sqrt(abar) of a variance-preserving process, 1 - s of a flow.
        sigma: the standard deviation of the noise; sqrt(1 - abar), or s.
        prediction: what the network predicts: the noise e, v = alpha e - sigma x0, x0 itself, or the flow e - x0.
        times: what the network gets as its time, by index.
    """

    alpha: np.ndarray
    sigma: np.ndarray
    prediction: Prediction
    times: np.ndarray

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.alpha)

    @cached_property
    def gain(self) -> np.ndarray:
        """Factor by which an error of the predicted noise grows in x0: sigma / alpha, the root of 1 / SNR."""
        return self.sigma / np.maximum(self.alpha, np.finfo(float).tiny)

    @cached_property
    def snr_root(self) -> np.ndarray:
        """Root of the signal-to-noise ratio, alpha / sigma."""
        return self.alpha / self.sigma

    def min_snr_weights(self, gamma: float) -> np.ndarray:
        """Return the weight of the squared error of a prediction, by index (Hang et al., "Min-SNR", ICCV 2023).

        It is min(SNR, gamma) (d x0 / d prediction)^2 (docs/diffusion.md, eq. 27): the loss is the squared error of x0
        times min(SNR, gamma). For predicted noise this is min(SNR, gamma) / SNR, and for v it is min(SNR, gamma) /
        (SNR + 1).
        """
        growth = {"epsilon": self.gain, "sample": np.ones_like(self.gain)}.get(self.prediction, self.sigma)
        return np.minimum(self.snr_root**2, gamma) * growth**2

    def posterior(self, i: int, previous: int) -> tuple[float, float, float]:
        """Return the factors of x_i and x0 in the mean of q(x_s | x_i, x0), and the standard deviation.

        See docs/diffusion.md, eq. 24. For s = i - 1 of a variance-preserving process this is the posterior of Ho et al.
        Any s < i keeps the distribution of x_s, so that fewer steps can be taken (Kingma et al., "Variational Diffusion
        Models", NeurIPS 2021, eq. 25 to 29).

        Args:
            i: the index.
            previous: the index s, below i; -1 is the end, where x_s is x0.
        """
        if previous < 0:
            return 0.0, 1.0, 0.0
        ratio = float(self.alpha[i] / self.alpha[previous])
        variance_i, variance_s = float(self.sigma[i]) ** 2, float(self.sigma[previous]) ** 2
        added = variance_i - ratio**2 * variance_s
        of_x = ratio * variance_s / variance_i
        return of_x, float(self.alpha[previous]) * added / variance_i, math.sqrt(added * variance_s / variance_i)

    def deterministic(self, i: int, previous: int) -> tuple[float, float]:
        """Return the factors of x_i and x0 in the step without new noise, to x_s with the same noise as x_i.

        It is the step of Song et al. ("DDIM", ICLR 2021, eq. 12 without noise), and Euler's step of a flow
        (docs/diffusion.md, eq. 25).
        """
        if previous < 0:
            return 0.0, 1.0
        of_x = float(self.sigma[previous] / self.sigma[i])
        return of_x, float(self.alpha[previous]) - of_x * float(self.alpha[i])

    def gather(self, table: np.ndarray, index: Tensor, like: Tensor) -> Tensor:
        """Return the entries of a table for each sample as `[N, 1, 1, 1]`, with dtype and device of `like`."""
        values = torch.as_tensor(table, dtype=torch.float64, device="cpu")[index.cpu()]
        return values.to(device=like.device, dtype=like.dtype).reshape(-1, 1, 1, 1)

    def add_noise(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Return x_i for latents and noise `[N, c, h, w]` and the index of each sample, int64 `[N]`."""
        return self.gather(self.alpha, index, x0) * x0 + self.gather(self.sigma, index, x0) * noise

    def target(self, x0: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Return what a perfect network predicts."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return x0
        if self.prediction == "flow":
            return noise - x0
        return self.gather(self.alpha, index, x0) * noise - self.gather(self.sigma, index, x0) * x0

    def predict_x0(self, prediction: Tensor, noisy: Tensor, index: Tensor) -> Tensor:
        """Return x0 from a prediction of the network and x_i."""
        alpha, sigma = self.gather(self.alpha, index, noisy), self.gather(self.sigma, index, noisy)
        if self.prediction == "epsilon":
            return (noisy - sigma * prediction) / alpha
        if self.prediction == "sample":
            return prediction
        if self.prediction == "flow":
            return noisy - sigma * prediction
        return alpha * noisy - sigma * prediction

    def predict_noise(self, prediction: Tensor, noisy: Tensor, index: Tensor) -> Tensor:
        """Return the noise e from a prediction of the network and x_i."""
        alpha, sigma = self.gather(self.alpha, index, noisy), self.gather(self.sigma, index, noisy)
        if self.prediction == "epsilon":
            return prediction
        if self.prediction == "sample":
            return (noisy - alpha * prediction) / sigma
        if self.prediction == "flow":
            return noisy + alpha * prediction
        return sigma * noisy + alpha * prediction

    def time(self, index: Tensor, like: Tensor) -> Tensor:
        """Return what the network gets as the time of each sample, `[N]`, on the device of `like`."""
        return torch.as_tensor(self.times)[index.cpu()].to(like.device)


def read_schedule(folder: Path) -> NoiseSchedule:
    """Read the noise process of a model folder of diffusers, from `scheduler/scheduler_config.json`.

    Raises:
        InputError: the file is missing, or states a process that is not known.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return make_schedule(config)
    except FileNotFoundError as error:
        raise InputError(
            f"network.base: expected {path}, got none; use a complete model folder of diffusers."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"network.base: expected the noise process of a diffusion model in {path}, got {shorten(str(error))}; use "
            "a model folder that diffusers wrote."
        ) from error


def make_schedule(config: dict[str, Any]) -> NoiseSchedule:
    """Return the noise process that the configuration of a diffusers scheduler states.

    Raises:
        ValueError: the process is not known.

    Example:
        >>> schedule = make_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
        >>> schedule.steps, round(float(schedule.gain[999]), 2)
        (1000, 14.61)
    """
    steps = int(config.get("num_train_timesteps", 1000))
    if "FlowMatch" in config.get("_class_name", ""):
        sigma = np.arange(1, steps + 1, dtype=np.float64) / steps
        return NoiseSchedule(1 - sigma, sigma, "flow", (steps * sigma).astype(np.float32))
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ValueError(f"prediction_type {prediction!r}")
    abar = np.cumprod(1 - _make_betas(config, steps))
    if config.get("rescale_betas_zero_snr"):
        abar = _rescale_to_zero_snr(abar)
    return NoiseSchedule(np.sqrt(abar), np.sqrt(1 - abar), prediction, np.arange(steps))


def _make_betas(config: dict[str, Any], steps: int) -> np.ndarray:
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], dtype=np.float64)
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return np.linspace(start, end, steps)
    if kind == "scaled_linear":
        return np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    if kind == "squaredcos_cap_v2":
        share = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.minimum(1 - share[1:] / share[:-1], _LARGEST_BETA)
    raise ValueError(f"beta_schedule {kind!r}")


def _rescale_to_zero_snr(abar: np.ndarray) -> np.ndarray:
    """Return abar whose last step is pure noise (Lin et al., "Common Diffusion Noise Schedules", WACV 2024, alg. 1)."""
    root = np.sqrt(abar)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
