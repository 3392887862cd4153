"""The judge inside a run: scores and sample pictures at each evaluation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfsr.console import bar
from selfsr.evaluation.benchmark import OnImage, Upscale, bicubic_upscaler, evaluate_set, pair_lr
from selfsr.evaluation.metrics import METRICS
from selfsr.evaluation.perceptual import load_metrics
from selfsr.images.files import Picture, from_tensor, write_picture
from selfsr.images.paths import list_pictures
from selfsr.images.resize import imresize
from selfsr.nets.base import set_scale
from selfsr.nets.weights.model import upscale_any_channels
from selfsr.recipe import EvalSet, Recipe
from selfsr.spec import by_scale
from selfsr.step import Clock
from selfsr.terms.pace import Pace


class Evaluator:
    """Judges a network on the recipe's sets and writes samples into the run folder.

    Args:
        recipe: has `evaluate`.
        folder: the run folder.
        device: where the network is.

    Raises:
        InputError: a set's folder is missing or empty, or a metric's weights cannot be had.
    """

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        assert recipe.evaluate is not None
        self.kind, self.channels = recipe.network.kind, recipe.data.channels
        self.device = device
        self.spec = recipe.evaluate
        self.scales = recipe.scales
        self.sets = [_read_set(name, entry, scale) for name, (entry, scale) in recipe.evaluation_sets.items()]
        self.extra = load_metrics(self.spec.metrics, device)
        self.samples = {scale: _Samples(recipe, folder, scale) for scale in recipe.scales}

    def baseline(self, net: nn.Module) -> dict[str, Any]:
        """Return the record of step 0: the scores of bicubic, and of the network as it starts."""
        record = self.evaluate(net, Clock(0, 1))
        bicubic = self._scores("Judging bicubic", lambda given: bicubic_upscaler(given.scale))
        return {**record, "bicubic": bicubic}

    def evaluate(self, net: nn.Module, clock: Clock) -> dict[str, Any]:
        """Return one line of `eval.jsonl`, and write the samples of this step."""

        def upscale(given: _Set) -> Upscale:
            set_scale(net, given.scale)
            return lambda lr: upscale_any_channels(
                net, lr, channels=self.channels, scale=given.scale, architecture=self.kind
            )

        def on_image(given: _Set) -> OnImage:
            samples = self.samples[given.scale]
            return lambda image, *tensors: samples.write(given.name, image, clock, *tensors)

        training = net.training
        net.eval()
        scores = self._scores(f"Judging step {clock.step}", upscale, luma_alone=self.channels == 1, on_image=on_image)
        net.train(training)
        record = {"step": clock.step, "epoch": clock.epoch, "sets": scores}
        if len(self.scales) == 1:
            return record
        return {**record, "score": self._mean(record)}

    def score(self, record: dict[str, Any]) -> float:
        """Return the score that chooses the best weights; the higher the better, whatever the metric."""
        higher = METRICS[self.spec.best_by].better == "higher"
        value = self._mean(record)
        if value is None:  # an infinite PSNR, or a distance that no picture of the set has
            return math.inf if higher else -math.inf
        return value if higher else -value

    def _mean(self, record: dict[str, Any]) -> float | None:
        """Return the metric that decides, on the first set, its mean over the scales; None where one has none."""
        first = list(record["sets"].values())[: len(self.scales)]
        found = [scores["mean"][self.spec.best_by] for scores in first]
        return None if None in found else math.fsum(found) / len(found)

    def _scores(
        self,
        what: str,
        upscale: "Callable[[_Set], Upscale]",
        *,
        luma_alone: bool = False,
        on_image: "Callable[[_Set], OnImage | None]" = lambda _: None,
    ) -> dict[str, Any]:
        found = {}
        with bar(what, sum(len(given.hr) for given in self.sets)) as advance:
            for given in self.sets:
                found[given.name] = evaluate_set(
                    upscale(given),
                    given.name,
                    given.hr,
                    scale=given.scale,
                    lr_paths=given.lr,
                    device=self.device,
                    extra=self.extra,
                    luma_alone=luma_alone,
                    on_image=on_image(given),
                    advance=advance,
                ).as_json()
        return found


class _Samples:
    """Writes `samples/<image>/`: the fixed pictures once, the output and the attention map at each evaluation."""

    def __init__(self, recipe: Recipe, folder: Path, scale: int) -> None:
        assert recipe.evaluate is not None
        self.folder = folder / "samples"
        self.count = recipe.evaluate.samples
        self.scale = scale
        self.side = recipe.evaluate.sample_px
        paces = [getattr(term, "pace", None) for term in recipe.method.terms.values()]
        self.pace: Pace | None = next((pace for pace in paces if pace is not None), None)
        self._chosen: list[str] = []

    def write(self, set_name: str, image: str, clock: Clock, lr: Tensor, sr: Tensor, hr: Tensor) -> None:
        key = f"{set_name}-{image}"
        if key not in self._chosen:
            if len(self._chosen) == self.count:
                return
            self._chosen.append(key)
        place = self.folder / key
        place.mkdir(parents=True, exist_ok=True)
        lr, sr, hr = self._center(lr, sr, hr)
        if not (place / "hr.png").exists():
            _write(place / "hr.png", hr)
            _write(place / "lr.png", lr)
            _write(place / "bicubic.png", imresize(lr, size=(hr.shape[2], hr.shape[3])))
        _write(place / f"sr_{clock.step:08d}.png", sr)
        if self.pace is not None and clock.step > 0:
            weight = self.pace.weight(sr, hr, clock).mean(dim=1, keepdim=True)
            _write(place / f"attention_{clock.step:08d}.png", weight / self.pace.peak)

    def _center(self, lr: Tensor, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        side = self.side // self.scale
        top = max(0, (lr.shape[2] - side) // 2)
        left = max(0, (lr.shape[3] - side) // 2)
        s = self.scale

        def cut(image: Tensor, factor: int) -> Tensor:
            rows = slice(top * factor, (top + side) * factor)
            return image[:, :, rows, left * factor : (left + side) * factor]

        return cut(lr, 1), cut(sr, s), cut(hr, s)


def _write(path: Path, image: Tensor) -> None:
    write_picture(path, Picture(from_tensor(image[0])))


def check_sets(recipe: Recipe) -> None:
    """Check that the sets of the recipe are there, before anything is built.

    Raises:
        InputError: a folder is missing or empty, or lacks the input of a picture.
    """
    for name, (entry, scale) in recipe.evaluation_sets.items():
        _read_set(name, entry, scale)


@dataclass(frozen=True)
class _Set:
    """The pictures of a set at one scale; `lr` is None where the inputs are made."""

    name: str
    scale: int
    hr: list[Path]
    lr: list[Path] | None


def _read_set(name: str, entry: EvalSet, scale: int) -> _Set:
    hr, lr = list_pictures(entry.hr), by_scale(entry.lr, scale)
    return _Set(name, scale, hr, pair_lr(hr, lr, scale) if lr else None)
