"""The judge inside a run: scores and sample pictures at each evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfsr.data.pictures import Picture, from_tensor, list_pictures, write_picture
from selfsr.data.resize import imresize
from selfsr.evaluate import evaluate_bicubic, evaluate_set, pair_lr
from selfsr.methods import Clock
from selfsr.metrics import METRICS
from selfsr.nets.model import in_any_colours
from selfsr.perceptual_metrics import load_metrics
from selfsr.progress import bar
from selfsr.recipe import EvalSet, Recipe
from selfsr.terms.pace import Pace


class Judge:
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
        self.scale = recipe.scale
        self.kind, self.channels = recipe.network.kind, recipe.data.channels
        self.device = device
        self.spec = recipe.evaluate
        self.sets = {name: _read_set(entry, recipe.scale) for name, entry in self.spec.sets.items()}
        self.extra = load_metrics(self.spec.metrics, device)
        self.samples = _Samples(recipe, folder)

    def baseline(self, net: nn.Module) -> dict[str, Any]:
        """Return the record of step 0: the scores of bicubic, and of the network as it starts."""
        record = self.judge(net, Clock(0, 1))
        bicubic = self._scores(
            lambda name, hr, lr, advance: evaluate_bicubic(
                name, hr, scale=self.scale, lr_paths=lr, device=self.device, extra=self.extra, advance=advance
            ),
            "Judging bicubic",
        )
        return {**record, "bicubic": bicubic}

    def judge(self, net: nn.Module, clock: Clock) -> dict[str, Any]:
        """Return one line of `eval.jsonl`, and write the samples of this step."""

        def score(name: str, hr: list[Path], lr: list[Path] | None, advance: Callable[..., None]):
            return evaluate_set(
                lambda lr: in_any_colours(net, lr, channels=self.channels, scale=self.scale, architecture=self.kind),
                name,
                hr,
                scale=self.scale,
                lr_paths=lr,
                device=self.device,
                extra=self.extra,
                on_image=lambda image, *tensors: self.samples.write(name, image, clock, *tensors),
                advance=advance,
            )

        training = net.training
        net.eval()
        scores = self._scores(score, f"Judging step {clock.step}")
        net.train(training)
        return {"step": clock.step, "epoch": clock.epoch, "sets": scores}

    def score(self, record: dict[str, Any]) -> float:
        """Return the score that chooses the best weights; the higher the better, whatever the metric."""
        first, metric = next(iter(self.sets)), self.spec.best_by
        value = record["sets"][first]["mean"][metric]
        if value is None:  # an infinite PSNR, or a distance that no picture of the set has
            return float("inf") if METRICS[metric].better == "higher" else float("-inf")
        return value if METRICS[metric].better == "higher" else -value

    def _scores(self, score: Callable, what: str) -> dict[str, Any]:
        found = {}
        with bar(what, sum(len(hr) for hr, _ in self.sets.values())) as advance:
            for name, (hr, lr) in self.sets.items():
                result = score(name, hr, lr, advance)
                found[name] = result.as_json()
        return found


class _Samples:
    """Writes `samples/<image>/`: the fixed pictures once, the output and the attention map at each evaluation."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        assert recipe.evaluate is not None
        self.folder = folder / "samples"
        self.count = recipe.evaluate.samples
        self.scale = recipe.scale
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
        lr, sr, hr = self._centre(lr, sr, hr)
        if not (place / "hr.png").exists():
            _write(place / "hr.png", hr)
            _write(place / "lr.png", lr)
            _write(place / "bicubic.png", imresize(lr, size=(hr.shape[2], hr.shape[3])))
        _write(place / f"sr_{clock.step:08d}.png", sr)
        if self.pace is not None and clock.step > 0:
            weight = self.pace.weight(sr, hr, clock).mean(dim=1, keepdim=True)
            _write(place / f"attention_{clock.step:08d}.png", weight / self.pace.peak)

    def _centre(self, lr: Tensor, sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
    for entry in (recipe.evaluate.sets if recipe.evaluate else {}).values():
        _read_set(entry, recipe.scale)


def _read_set(entry: EvalSet, scale: int) -> tuple[list[Path], list[Path] | None]:
    hr = list_pictures(entry.hr)
    return hr, pair_lr(hr, entry.lr, scale) if entry.lr else None
