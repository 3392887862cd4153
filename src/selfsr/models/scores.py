"""Score a model for its card."""

from collections.abc import Mapping

import torch

from selfsr.evaluation.benchmark import evaluate_set
from selfsr.evaluation.kinds import ImageMetric, SetMetric
from selfsr.evaluation.metrics import METRICS
from selfsr.evaluation.sets import ImageSet
from selfsr.nets.weights.model import Model

# More digits than tables show, and fewer than differ between machines.
_EXTRA_DECIMALS = 2


def score_model(
    model: Model, sets: Mapping[str, ImageSet], extra: Mapping[str, ImageMetric | SetMetric], device: torch.device
) -> dict[str, dict[str, float]]:
    """Return the means of a model by set and metric, with two digits more than tables show.

    Raises:
        InputError: an image or a metric cannot be used.
        OSError: an image cannot be read.
    """
    model.net.to(device)
    scores = {}
    for title, images in sets.items():
        means = evaluate_set(
            model.upscale,
            title,
            images.paths,
            scale=model.scale,
            device=device,
            extra=extra,
            luma_only=model.channels == 1,
        ).mean
        scores[title] = {name: round(mean, METRICS[name].decimals + _EXTRA_DECIMALS) for name, mean in means.items()}
    return scores
