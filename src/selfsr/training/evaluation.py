"""Evaluation during a run: scores and sample images."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfsr.console import progress_bar
from selfsr.evaluation.benchmark import (
    OnImage,
    SetScores,
    UpscaleFn,
    describe_bicubic_lr,
    evaluate_set,
    make_bicubic_upscaler,
)
from selfsr.evaluation.combined import average_over_scales, combine_changes
from selfsr.evaluation.degraded import DegradedInputs
from selfsr.evaluation.kinds import SetMetric
from selfsr.evaluation.metrics import METRICS, load_metrics
from selfsr.evaluation.seeds import Sampler
from selfsr.evaluation.shares import join_shares, split_indices
from selfsr.images.pairing import pair_lr
from selfsr.images.paths import find_root, list_images
from selfsr.machine.distributed import process_count, process_rank, share_with_all
from selfsr.nets.base import set_scale
from selfsr.nets.diffusion.sampled import SampledNetwork
from selfsr.nets.diffusion.sampling import keep_sampling, set_sampling
from selfsr.nets.weights.model import upscale_any_channels
from selfsr.recipe import Recipe
from selfsr.spec import select_path
from selfsr.step import Clock
from selfsr.training.samples import SampleWriter
from selfsr.training.seed_samples import SeedSampleWriter, choose_seeds


@dataclass(frozen=True)
class _ScaledSet:
    """The images of an evaluation set at one scale.

    Attributes:
        name: its name in `eval.jsonl`.
        scale: the upscaling factor.
        hr: the ground truths.
        lr: the files of the inputs; None if they are made from `hr`.
        degraded: makes the inputs; None if they are files or bicubic.
        inputs: where the inputs come from, as a sentence for `eval.jsonl`.
    """

    name: str
    scale: int
    hr: list[Path]
    lr: list[Path] | None
    degraded: DegradedInputs | None
    inputs: str


class Evaluator:
    """Evaluate a network on the recipe's sets and write samples into the run folder.

    The processes of a run share the images, and all get all scores; the first one writes the samples.

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
        self.start: dict[str, Any] | None = None
        self.extra = load_metrics(self.spec.metrics, device, {images.name: len(images.hr) for images in self.sets})
        self.seed_samples = SeedSampleWriter(self.architecture, self.channels, choose_seeds(self.spec.seeds))
        self.samples: dict[int, SampleWriter] = {scale: SampleWriter(recipe, folder, scale) for scale in recipe.scales}

    def count_images(self) -> int:
        """Return the number of images of an evaluation, over all sets and scales."""
        return sum(len(images.hr) for images in self.sets)

    def limit_images(self, count: int) -> None:
        """Evaluate only the first `count` images of each set, or as many as its metrics need."""
        least = max([count, *(METRICS[name].least_images for name in self.extra)])
        self.sets = [
            replace(images, hr=images.hr[:least], lr=None if images.lr is None else images.lr[:least])
            for images in self.sets
        ]

    def evaluate_start(self, net: nn.Module) -> dict[str, Any]:
        """Return the record of step 0: the scores of the initial network and of bicubic upscaling."""
        record = self.evaluate(net, Clock(0, 1))
        self.start = record
        bicubic = self._scores("Evaluating bicubic", lambda images: make_bicubic_upscaler(images.scale))
        return {**record, "bicubic": bicubic}

    def evaluate(self, net: nn.Module, clock: Clock) -> dict[str, Any]:
        """Return one record of `eval.jsonl`, and write the samples of this step."""

        def upscale_with(images: _ScaledSet) -> UpscaleFn:
            set_scale(net, images.scale)
            return lambda lr: upscale_any_channels(
                net, lr, channels=self.channels, scale=images.scale, architecture=self.architecture
            )

        def write_samples(images: _ScaledSet) -> OnImage | None:
            if process_rank() > 0:
                return None
            samples = self.samples[images.scale]

            def write(name: str, lr: Tensor, sr: Tensor, hr: Tensor) -> None:
                folder = samples.write(images.name, name, clock, lr, sr, hr)
                if folder is not None and isinstance(net, SampledNetwork):
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
        if len(self.scales) == 1 and isinstance(self.spec.best_by, str):
            return record
        return {**record, "score": self._combine_scores(record)}

    def score(self, record: dict[str, Any]) -> float:
        """Return the score that selects the best weights; higher is better for every metric."""
        best_by = self.spec.best_by
        value = record["score"] if "score" in record else self._combine_scores(record)
        if isinstance(best_by, dict):  # undefined if one of its scores is
            return -math.inf if value is None else value
        higher = METRICS[best_by].better == "higher"
        if value is None:  # an infinite PSNR, or a distance that is undefined for every image of the set
            return math.inf if higher else -math.inf
        return value if higher else -value

    def _combine_scores(self, record: dict[str, Any]) -> float | None:
        """Return the score of `best_by` on the first set, averaged over the scales; None if a scale has no value."""
        means = average_over_scales(record["sets"], len(self.scales))
        if isinstance(self.spec.best_by, str):
            return means[self.spec.best_by]
        start = record if self.start is None else self.start
        return combine_changes(means, average_over_scales(start["sets"], len(self.scales)), self.spec.best_by)

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
        shares = self._split_sets()

        def evaluate_share() -> list[SetScores]:
            """Return the scores of this process's images, for each set."""
            own = [share[process_rank()] for share in shares]
            with self._show_progress(title, sum(map(len, own))) as advance:
                return [
                    evaluate_set(
                        upscale_with(images),
                        images.name,
                        images.hr,
                        scale=images.scale,
                        lr_paths=images.lr,
                        degraded=images.degraded,
                        device=self.device,
                        extra=self.extra,
                        luma_only=luma_only,
                        sampler=sampler,
                        on_image=on_image(images),
                        advance=advance,
                        only=only,
                    )
                    for images, only in zip(self.sets, own, strict=True)
                ]

        of_processes = share_with_all(evaluate_share)
        return {
            images.name: {"scale": images.scale, "lr": images.inputs, **join_shares(of_set).as_json()}
            for images, *of_set in zip(self.sets, *of_processes, strict=True)
        }

    def _show_progress(self, title: str, images: int) -> contextlib.AbstractContextManager[Callable[..., None] | None]:
        """Return a progress bar in the first process, and a context that shows nothing in the others."""
        return progress_bar(title, images) if process_rank() == 0 else contextlib.nullcontext()

    def _split_sets(self) -> list[list[range]]:
        """Return the indices of the images that each process evaluates, for each set."""
        left = {scale: samples.count for scale, samples in self.samples.items()}
        shares = []
        for images in self.sets:
            count = len(images.hr)
            # The first process writes the samples, which are the first images of a scale. A metric of sets, such as
            # FID, needs all images in one process.
            is_undivided = any(isinstance(metric, SetMetric) for metric in self.extra.values())
            shares.append(split_indices(count, process_count(), count if is_undivided else left[images.scale]))
            left[images.scale] = max(0, left[images.scale] - count)
        return shares


def check_sets(recipe: Recipe) -> None:
    """Check that the images of the recipe's evaluation sets exist, and are large enough for their degradations.

    Raises:
        InputError: a folder is missing or empty, has no input for an image, or an image is too small.
    """
    for images in _read_sets(recipe):
        if images.degraded is not None:
            images.degraded.check(images.hr, images.scale)


def list_set_files(recipe: Recipe) -> dict[str, list[Path]]:
    """Return the files of the recipe's evaluation sets, by the key of the recipe and the scale."""
    files = {}
    for images in _read_sets(recipe) if recipe.evaluate else ():
        files[f"evaluate.sets.{images.name}.hr x{images.scale}"] = images.hr
        if images.lr is not None:
            files[f"evaluate.sets.{images.name}.lr x{images.scale}"] = images.lr
    return files


def describe_inputs(recipe: Recipe) -> list[str]:
    """Return a warning if training degrades its inputs, but every evaluation set has bicubic ones."""
    degradation = getattr(recipe.data, "degrade", None)
    if degradation is None or recipe.evaluate is None:
        return []
    sets = recipe.evaluate.sets
    if any(entry.lr is not None or entry.degrade is not None for entry in sets.values()):
        return []
    name, entry = next(iter(sets.items()))
    return [
        f"Warning: data.degrade ({degradation.preset}) makes the inputs of the training, but all evaluation sets have "
        "bicubic inputs, by which the best weights are chosen; add "
        f"--set 'evaluate.sets.{name}={{hr: {entry.hr}, degrade: training}}' to evaluate as trained."
    ]


def _read_sets(recipe: Recipe) -> list[_ScaledSet]:
    sets = []
    for name, (entry, scale) in recipe.evaluation_sets.items():
        hr, lr, degraded = list_images(entry.hr), select_path(entry.lr, scale), None
        inputs = describe_bicubic_lr(scale) if lr is None else f"files of {lr}"
        degradation = recipe.set_degradation(entry)
        if degradation is not None:
            degraded = DegradedInputs(degradation, find_root(entry.hr, hr), entry.seed)
            inputs = degraded.describe()
        pairs = pair_lr(entry.hr, hr, lr, scale) if lr else None
        sets.append(_ScaledSet(name, scale, hr, pairs, degraded, inputs))
    return sets
