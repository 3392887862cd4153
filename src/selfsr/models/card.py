"""Write the card of a model: its purpose, scores and origin."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from selfsr.evaluation.metrics import METRICS, describe_better
from selfsr.models.shipped import ModelCard

# What a model is for, by the kind of its method.
PURPOSE: dict[str, str] = {
    "regression": "It is trained for a high PSNR: its outputs are close to the original on average, and soft where "
    "details are lost.",
    "gan": "It is trained for perceptual quality: its outputs have sharp, generated details, and a lower PSNR.",
}


def write_card(card: ModelCard) -> str:
    """Return the card of a model in Markdown, from the metadata of its weights file."""
    size = f"{card.path.stat().st_size / 2**10:,.0f} KB"
    summary = f"A network of kind `{card.network}` that upscales images {card.scale} times."
    summary += f" {PURPOSE[card.method]}" if card.method in PURPOSE else ""
    return f"""# {card.name}

{textwrap.fill(summary, 120)}

```sh
selfsr upscale photo.png -m {card.name}
```

| | |
|---|---|
| scale | {card.scale} |
| file | `{card.path.name}`, {size}, float16, computed in float32 |
| license | {card.license} |
| training images | {card.training_data} |
| training | {describe_training(card)} |

## Scores

Means over the images of a set, by the protocol of `selfsr evaluate`: LR by bicubic, scores without a border.

{format_scores(card.scores)}

{textwrap.fill(describe_better(list_scored_metrics(card.scores)), 120)}

```sh
{format_command(card)}
```

## Training images and their terms

{card.terms}

## Recipe

The file contains the complete recipe of its training. This prints it:

```sh
selfsr models show {card.name} --recipe
```
"""


def describe_training(card: ModelCard) -> str:
    """Return steps, time, device and start of the training in one line."""
    start = yaml.safe_load(card.recipe).get("start_from")
    time = "" if card.seconds is None else f", {format_time(card.seconds)}"
    return f"{card.steps:,} steps{time}{f' on {card.device}' if card.device else ''}" + (
        "" if start is None else f", from the weights of {Path(start).stem}"
    )


def format_command(card: ModelCard) -> str:
    """Return the command that computes the scores of a card again."""
    extra = [metric for metric in list_scored_metrics(card.scores) if METRICS[metric].load is not None]
    sets = "".join(f" --data {name}" for name in card.scores)
    return f"selfsr evaluate {card.name}{sets}" + "".join(f" --metric {metric}" for metric in extra)


def format_scores(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of means by set and metric in Markdown."""
    metrics = list_scored_metrics(scores)
    titles = [f"{METRICS[m].title}{f' ({METRICS[m].unit})' if METRICS[m].unit else ''}" for m in metrics]
    lines = [f"| set | {' | '.join(titles)} |", f"|---|{'---:|' * len(metrics)}"]
    for name, means in scores.items():
        values = [METRICS[m].format_score(means[m]) if m in means else "" for m in metrics]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)


def list_scored_metrics(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the metrics of any of the sets, in the order of tables."""
    known = {metric for means in scores.values() for metric in means}
    return [metric for metric in METRICS if metric in known]


def format_time(seconds: float) -> str:
    """Return a time in minutes or hours."""
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
