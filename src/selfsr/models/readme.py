"""Write the README of an exported model."""

import textwrap
from collections.abc import Mapping, Sequence

from selfsr.evaluation.metrics import METRICS, describe_better
from selfsr.models.card import format_scores, format_time, list_scored_metrics
from selfsr.models.card_options import CardOptions
from selfsr.models.comparison import FLOAT32_LIMIT_LEVELS, HALF_LIMIT_DB
from selfsr.models.openmodeldb import ExportedFile, NetworkFacts, describe_purpose
from selfsr.models.pairs import Pair
from selfsr.models.training_facts import TrainingFacts


def write_readme(
    name: str,
    network: NetworkFacts,
    training: TrainingFacts,
    card: CardOptions,
    files: Sequence[ExportedFile],
    pairs: Sequence[Pair],
    scores: Mapping[str, Mapping[str, float]],
) -> str:
    """Return the card of a model in Markdown; sections without known facts are left out."""
    sections = [
        f"# {name}",
        card.description or textwrap.fill(describe_purpose(network, training), 120),
        f"```sh\nselfsr upscale photo.png -m {_choose_file(files).name}\n```",
        _describe_programs(network),
        _tabulate_facts(network, card),
        _tabulate_files(files),
        _describe_training(training, card),
        _describe_scores(scores, _choose_file(files).name),
        _show_pairs(pairs),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _choose_file(files: Sequence[ExportedFile]) -> ExportedFile:
    return next((file for file in files if file.type == "safetensors"), files[0])


def _describe_programs(network: NetworkFacts) -> str:
    programs = "chaiNNer, ComfyUI and other programs that use spandrel open the files as well."
    only = "The safetensors and .pth files open in selfsr only: spandrel does not know this architecture."
    return programs if network.opens_in_spandrel else only


def _tabulate_facts(network: NetworkFacts, card: CardOptions) -> str:
    rows = {
        "architecture": " ".join((network.architecture, *network.size)),
        "parameters": f"{network.parameters:,}",
        "scale": str(network.scale),
        "channels": f"{network.input_channels} in, {network.output_channels} out",
        "author": ", ".join(card.author),
        "license": card.license or "",
        "tags": ", ".join(card.tags),
    }
    lines = [f"| {title} | {text} |" for title, text in rows.items() if text]
    return "\n".join(["| | |", "|---|---|", *lines])


def _tabulate_files(files: Sequence[ExportedFile]) -> str:
    lines = ["## Files", "", "| file | size | numbers | difference from the float32 network |", "|---|---:|---|---|"]
    lines += [f"| `{file.name}` | {_format_size(file.size)} | {file.precision} | {file.difference} |" for file in files]
    limits = (
        "Differences are those of outputs in gray levels of 255, over images of several sizes. Files in float32 are at "
        f"most {FLOAT32_LIMIT_LEVELS:g} levels off; 16-bit files have at least {HALF_LIMIT_DB:g} dB PSNR."
    )
    notes = [f"`{file.name}`: {file.note}" for file in files if file.note]
    sums = "\n".join(f"{file.sha256}  {file.name}" for file in files)
    paragraphs = [textwrap.fill(text, 120) for text in (limits, *notes)]
    return "\n\n".join(["\n".join(lines), *paragraphs, f"SHA-256:\n\n```text\n{sums}\n```"])


def _describe_training(training: TrainingFacts, card: CardOptions) -> str:
    images = card.dataset or training.dataset
    count = card.dataset_size or training.dataset_size
    start = card.pretrained_model_g or training.start_model
    rows = {
        "training images": f"{images}{f', {count:,} images' if count else ''}" if images else "",
        "LR images": {True: "degraded during training", False: "bicubic or given", None: ""}[training.degrades],
        "method": training.method,
        "steps": f"{training.steps:,}" if training.steps else "",
        "batch": f"{training.batch} crops of {training.crop_px} px" if training.batch and training.crop_px else "",
        "started from": f"`{start}`" if start else "",
        "time": f"{format_time(training.seconds)} on {training.device}" if training.seconds and training.device else "",
    }
    lines = [f"| {title} | {text} |" for title, text in rows.items() if text]
    if not lines and not card.dataset_terms:
        return ""
    parts = ["## Training"]
    if lines:
        parts.append("\n".join(["| | |", "|---|---|", *lines]))
    if card.dataset_terms:
        parts.append(card.dataset_terms)
    if training.recipe:
        parts.append(f"<details><summary>Recipe</summary>\n\n```yaml\n{training.recipe.strip()}\n```\n\n</details>")
    return "\n\n".join(parts)


def _describe_scores(scores: Mapping[str, Mapping[str, float]], file: str) -> str:
    if not scores:
        return ""
    metrics = list_scored_metrics(scores)
    extra = "".join(f" --metric {metric}" for metric in metrics if METRICS[metric].load is not None)
    sets = "".join(f" --data {name}" for name in scores)
    return "\n\n".join(
        [
            "## Scores",
            "Means over the images of a set, by the protocol of `selfsr evaluate`: LR by bicubic, in float32.",
            format_scores(scores),
            textwrap.fill(describe_better(metrics), 120),
            f"```sh\nselfsr evaluate {file}{sets}{extra}\n```",
        ]
    )


def _show_pairs(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    lines = ["## Images", "", "| input | output |", "|---|---|"]
    for pair in pairs:
        lr = f"[![input](images/{pair.lr_thumbnail})](images/{pair.lr})"
        sr = f"[![output](images/{pair.sr_thumbnail})](images/{pair.sr})"
        lines.append(f"| {lr} | {sr} |")
    return "\n".join(lines)


def _format_size(size: int) -> str:
    return f"{size / 2**20:,.1f} MB" if size >= 2**20 else f"{size / 2**10:,.0f} KB"
