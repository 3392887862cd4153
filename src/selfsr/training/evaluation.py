"""Evaluation during a run: scores and sample images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfsr.console import progress_bar
from selfsr.evaluation.benchmark import OnImage, UpscaleFn, evaluate_set, make_bicubic_upscaler
from selfsr.evaluation.metrics import METRICS, load_metrics
from selfsr.evaluation.seeds import Sampler
from selfsr.images.pairing import pair_lr
from selfsr.images.paths import list_images
from selfsr.nets.base import set_scale
from selfsr.nets.diffusion.residual_shifting import ResidualShifting, keep_sampling, set_sampling
from selfsr.nets.weights.model import upscale_any_channels
from selfsr.recipe import EvalSet, Recipe
from selfsr.spec import select_path
from selfsr.step import Clock
from selfsr.training.samples import SampleWriter
from selfsr.training.seed_samples import SeedSampleWriter, choose_seeds


@dataclass(frozen=True)
class _ScaledSet:
    """The images of an evaluation set at one scale; `lr` is None if the inputs are computed from `hr`."""

    name: str
    scale: int
    hr: list[Path]
    lr: list[Path] | None


class Evaluator:
    """Evaluate a network on the recipe's sets and write samples into the run folder.

    Args:
        recipe: has `evaluate`.
        folder: the run folder.
        device: device of the network.

    Raises:
        InputError: the folder of a set is missing or empty, or the weights of a metric are not available.
    """

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        assert recipe.evaluate is not None
        self.architecture, self.channels = recipe.network.kind, recipe.data.channels
        self.is_sampled: bool = recipe.network.is_sampled
        self.device = device
        self.spec = recipe.evaluate
        self.scales: tuple[int, ...] = recipe.scales
        self.sets: list[_ScaledSet] = _read_sets(recipe)
        self.extra = load_metrics(self.spec.metrics, device)
        self.seed_samples = SeedSampleWriter(self.architecture, self.channels, choose_seeds(self.spec.seeds))
        self.samples: dict[int, SampleWriter] = {scale: SampleWriter(recipe, folder, scale) for scale in recipe.scales}

    def evaluate_start(self, net: nn.Module) -> dict[str, Any]:
        """Return the record of step 0: the scores of the initial network and of bicubic upscaling."""
        record = self.evaluate(net, Clock(0, 1))
        bicubic = self._scores("Evaluating bicubic", lambda images: make_bicubic_upscaler(images.scale))
        return {**record, "bicubic": bicubic}

    def evaluate(self, net: nn.Module, clock: Clock) -> dict[str, Any]:
        """Return one record of `eval.jsonl`, and write the samples of this step."""

        def upscale_with(images: _ScaledSet) -> UpscaleFn:
            set_scale(net, images.scale)
            return lambda lr: upscale_any_channels(
                net, lr, channels=self.channels, scale=images.scale, architecture=self.architecture
            )

        def write_samples(images: _ScaledSet) -> OnImage:
            samples = self.samples[images.scale]

            def write(name: str, lr: Tensor, sr: Tensor, hr: Tensor) -> None:
                folder = samples.write(images.name, name, clock, lr, sr, hr)
                if folder is not None and isinstance(net, ResidualShifting):
                    self.seed_samples.write(net, folder, clock.step, lr, hr, samples.crop_center)

            return write

        sampler = Sampler(self.spec.seeds, lambda seed: set_sampling(net, seed=seed)) if self.is_sampled else None
        training = net.training
        net.eval()
        with keep_sampling(net):
            scores = self._scores(
                f"Evaluating step {clock.step}",
                upscale_with,
                luma_only=self.channels == 1,
                sampler=sampler,
                on_image=write_samples,
            )
        net.train(training)
        record = {"step": clock.step, "epoch": clock.epoch, "sets": scores}
        if len(self.scales) == 1:
            return record
        return {**record, "score": self._mean_score(record)}

    def score(self, record: dict[str, Any]) -> float:
        """Return the score that selects the best weights; higher is better for every metric."""
        higher = METRICS[self.spec.best_by].better == "higher"
        value = self._mean_score(record)
        if value is None:  # an infinite PSNR, or a distance that is undefined for every image of the set
            return math.inf if higher else -math.inf
        return value if higher else -value

    def _mean_score(self, record: dict[str, Any]) -> float | None:
        """Return metric `best_by` on the first set, averaged over the scales; None if a scale has no value."""
        of_first_set = list(record["sets"].values())[: len(self.scales)]
        values = [scores["mean"][self.spec.best_by] for scores in of_first_set]
        return None if None in values else math.fsum(values) / len(values)

    def _scores(
        self,
        title: str,
        upscale_with: "Callable[[_ScaledSet], UpscaleFn]",
        *,
        luma_only: bool = False,
        sampler: Sampler | None = None,
        on_image: "Callable[[_ScaledSet], OnImage | None]" = lambda _: None,
    ) -> dict[str, Any]:
        """Return the scores of every set by its name, and show progress under `title`."""
        scores = {}
        with progress_bar(title, sum(len(images.hr) for images in self.sets)) as advance:
            for images in self.sets:
                scores[images.name] = evaluate_set(
                    upscale_with(images),
                    images.name,
                    images.hr,
                    scale=images.scale,
                    lr_paths=images.lr,
                    device=self.device,
                    extra=self.extra,
                    luma_only=luma_only,
                    sampler=sampler,
                    on_image=on_image(images),
                    advance=advance,
                ).as_json()
        return scores


def check_sets(recipe: Recipe) -> None:
    """Check that the images of the recipe's evaluation sets exist.

    Raises:
        InputError: a folder is missing or empty, or has no input for an image.
    """
    _read_sets(recipe)


def _read_sets(recipe: Recipe) -> list[_ScaledSet]:
    return [_read_set(name, entry, scale) for name, (entry, scale) in recipe.evaluation_sets.items()]


def _read_set(name: str, entry: EvalSet, scale: int) -> _ScaledSet:
    hr, lr = list_images(entry.hr), select_path(entry.lr, scale)
    return _ScaledSet(name, scale, hr, pair_lr(entry.hr, hr, lr, scale) if lr else None)
