"""Run and score the models of a comparison, one at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from selfsr.comparison.candidates import BICUBIC, Candidate, ModelFacts, open_model
from selfsr.comparison.cost import Cost, clock, measure_cost
from selfsr.comparison.inputs import ComparedSet
from selfsr.comparison.outputs import HR, LR, KeptOutputs
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import SetScores, UpscaleFn, evaluate_set, make_bicubic_upscaler
from selfsr.evaluation.kinds import ImageMetric, SetMetric
from selfsr.images.files import image_to_tensor, read_image
from selfsr.images.resize import mod_crop, round_to_bits
from selfsr.machine.memory import release_cached_memory
from selfsr.upscaling.options import RequestedPrecision
from selfsr.upscaling.tile_size import Tile
from selfsr.upscaling.upscaler import Upscaler


@dataclass(frozen=True)
class ComparisonTask:
    """The options of a comparison.

    Attributes:
        scale: the upscaling factor.
        device: the device of the networks.
        precision: precision of the networks.
        tile: the largest tile in pixels of LR, or how it is chosen.
        metrics: further metrics by name, loaded once for all models.
    """

    scale: int
    device: torch.device
    precision: RequestedPrecision
    tile: Tile
    metrics: Mapping[str, ImageMetric | SetMetric]


@dataclass
class Result:
    """The scores and the cost of a model or a folder of finished images.

    Attributes:
        name: its name.
        source: the file, folder or name that the user wrote; empty for bicubic.
        facts: the facts about a model; None for others.
        cost: the cost of a model; None for others.
        sets: the scores by set.
    """

    name: str
    source: str
    facts: ModelFacts | None = None
    cost: Cost | None = None
    sets: dict[str, SetScores] = field(default_factory=dict)


def compare(
    candidates: Sequence[Candidate],
    facts: Mapping[str, ModelFacts],
    sets: Mapping[str, ComparedSet],
    task: ComparisonTask,
    *,
    results: list[Result],
    kept: KeptOutputs | None = None,
    advance: Callable[..., None] | None = None,
    on_failure: Callable[[str], None],
) -> None:
    """Score bicubic upscaling and each candidate on each set; only one model is in memory at a time.

    Args:
        candidates: the models and folders of the comparison.
        facts: the facts about the models by name, from `read_facts`.
        sets: the images, from `find_inputs`.
        task: the options.
        results: receives each result as soon as it begins, for a caller that keeps it after an interruption.
        kept: receives the images of the page; None for no page.
        advance: called as `advance(note=...)` after each image.
        on_failure: called with a sentence for each image that cannot be read or scored.

    Raises:
        InputError: the precision or tile is not available for a model.
    """
    if any(one.hr is not None or one.lr is not None for one in sets.values()):
        results.append(Result(BICUBIC, ""))
        upscaler = _Running(make_bicubic_upscaler(task.scale), False)
        _score(results[-1], upscaler, sets, task, kept, advance, on_failure)
    for candidate in candidates:
        result = Result(candidate.name, candidate.source, facts.get(candidate.name))
        results.append(result)
        _score(result, _start(candidate, result, task), sets, task, kept, advance, on_failure)
        release_cached_memory()


def count_runs(candidates: Sequence[Candidate], sets: Mapping[str, ComparedSet]) -> int:
    """Return how often `compare` calls `advance`."""
    with_bicubic = any(one.hr is not None or one.lr is not None for one in sets.values())
    return (len(candidates) + with_bicubic) * sum(len(one.names) for one in sets.values())


@dataclass
class _Running:
    """An upscaler at work; `finished` replaces it by an image from disk."""

    upscale: UpscaleFn | None
    luma_only: bool


def _start(candidate: Candidate, result: Result, task: ComparisonTask) -> _Running:
    if candidate.weights is None:
        return _Running(None, False)
    model = open_model(candidate, task.scale)
    upscaler = Upscaler(
        model,
        device=task.device,
        precision=task.precision,
        tile=task.tile,
        sampling={"seed": 0} if model.is_sampled else None,
    )
    channels = 1 if model.channels == 1 else 3
    result.cost = measure_cost(upscaler, model.net, channels, task.device)
    return _Running(clock(upscaler, result.cost, task.device), model.channels == 1)


def _score(
    result: Result,
    running: _Running,
    sets: Mapping[str, ComparedSet],
    task: ComparisonTask,
    kept: KeptOutputs | None,
    advance: Callable[..., None] | None,
    on_failure: Callable[[str], None],
) -> None:
    for name, one in sets.items():
        scores = result.sets[name] = SetScores(name, {})
        images = _Finished(one.finished[result.name], task) if running.upscale is None else None
        upscale = images or running.upscale
        assert upscale is not None

        def move(note: str, images: "_Finished | None" = images) -> None:
            if images is not None:
                images.index += 1
            if advance is not None:
                advance(note=f"{result.name}, {note}")

        def keep(image: str, lr: Tensor | None, sr: Tensor, hr: Tensor | None, name: str = name) -> None:
            if kept is not None:
                for version, pixels in ((result.name, sr), (LR, lr), (HR, hr)):
                    if pixels is not None and (version == result.name or result.name == BICUBIC):
                        kept.keep(name, image, version, pixels)

        if one.hr is None:
            _score_without_hr(upscale, one, task, scores, keep, move, on_failure)
            continue
        evaluate_set(
            upscale,
            name,
            one.hr,
            scale=task.scale,
            lr_paths=one.lr,
            degraded=one.degraded,
            device=task.device,
            extra=task.metrics,
            luma_only=running.luma_only,
            on_image=keep,
            advance=move,
            scores=scores,
            on_failure=on_failure,
        )


def _score_without_hr(
    upscale: UpscaleFn,
    one: ComparedSet,
    task: ComparisonTask,
    scores: SetScores,
    keep: Callable[[str, Tensor | None, Tensor, Tensor | None], None],
    move: Callable[[str], None],
    on_failure: Callable[[str], None],
) -> None:
    """Upscale each input and compute the metrics that need no ground truth, without the border as `evaluate_set`."""
    border_px = task.scale
    for index, image in enumerate(one.names):
        path = None if one.lr is None else one.lr[index]
        try:
            lr = None if path is None else image_to_tensor(read_image(path))
            given = torch.zeros(1, 3, 1, 1) if lr is None else lr
            with torch.inference_mode():
                sr = round_to_bits(upscale(given.to(task.device)).float())
            if not bool(sr.isfinite().all()):
                raise InputError("expected a finite output, got NaN or infinity; use another model.")
            inner = sr[..., border_px : sr.shape[-2] - border_px, border_px : sr.shape[-1] - border_px].contiguous()
            values = {name: metric(inner, inner) for name, metric in task.metrics.items() if callable(metric)}
        except (InputError, OSError) as error:
            on_failure(str(error) if path is None or str(path) in str(error) else f"{path}: {error}")
        else:
            scores.images[image] = values
            keep(image, lr, sr.cpu(), None)
        move(image)


class _Finished:
    """An upscaler that returns the finished image at `index`, whatever its input is."""

    def __init__(self, paths: Sequence[Path], task: ComparisonTask) -> None:
        self.index = 0
        self._paths = paths
        self._task = task

    def __call__(self, lr: Tensor) -> Tensor:
        path = self._paths[self.index]
        image = mod_crop(round_to_bits(image_to_tensor(read_image(path))), self._task.scale)
        return image.to(lr.device)
