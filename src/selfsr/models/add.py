"""Add the model of a run to the shipped ones: a small weights file with its scores and origin, and a card to read."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from selfsr.errors import InputError
from selfsr.evaluation.metrics import load_metrics
from selfsr.evaluation.sets import ImageSet
from selfsr.fileio import write_atomic
from selfsr.models.card import write_card
from selfsr.models.scores import score_model
from selfsr.models.shipped import ModelCard, read_card
from selfsr.nets.weights.load import load_model, read_metadata
from selfsr.nets.weights.save import save_weights
from selfsr.recipe.private import hide_metadata
from selfsr.recipe.yaml12 import read_yaml
from selfsr.runfolder.read import read_run_folders


def add_model(
    run: Path,
    target: Path,
    sets: Mapping[str, ImageSet],
    *,
    training_data: str,
    terms: str,
    license: str,
    metrics: Sequence[str] = (),
    device: torch.device,
) -> ModelCard:
    """Write the newest weights of a run in float16, with scores and origin as metadata, and a card next to the file.

    The scores are of the written numbers, computed in float32.

    Args:
        run: the run folder; its `weights/last` has the EMA of the generator.
        target: the `.safetensors` file to write; the card is the `.md` file of the same name.
        sets: the sets to evaluate on, by name.
        training_data: names of the training images.
        terms: terms of use of the training images, one Markdown paragraph.
        license: license of the weights file.
        metrics: further metrics, such as "lpips".
        device: the device that evaluates.

    Returns:
        The facts of the written file.

    Raises:
        InputError: the run has no weights or several scales, the target has another suffix, a weight is too large for
            float16, or an image or a metric cannot be used.
        OSError: a file cannot be read or written.
    """
    if target.suffix != ".safetensors":
        raise InputError(f"models add: expected a file that ends in .safetensors, got {target}; change its suffix.")
    source = _find_weights(run)
    extra = load_metrics(metrics, device, {title: len(images.paths) for title, images in sets.items()})
    metadata = {**hide_metadata(read_metadata(source)), **_describe_run(run, source)}
    metadata |= {"training_data": training_data, "training_data_terms": terms, "license": license}
    with tempfile.TemporaryDirectory(prefix="selfsr-") as name:
        half = Path(name) / "half.safetensors"
        net = load_model(source).net
        save_weights(half, net, metadata, dtype=torch.float16, fold=True)
        scores = score_model(load_model(half), sets, extra, device)
    save_weights(target, net, {**metadata, "scores": json.dumps(scores)}, dtype=torch.float16, fold=True)
    card = read_card(target)
    write_atomic(target.with_suffix(".md"), write_card(card))
    return card


def _find_weights(run: Path) -> Path:
    for suffix in (".safetensors", ".pth"):
        path = run / "weights" / f"last{suffix}"
        if path.is_file():
            return path
    raise InputError(
        f"models add: expected a run folder with weights/last.safetensors, got {run}, which has none; train until the "
        "first checkpoint, or pass another folder."
    )


def _describe_run(run: Path, weights: Path) -> dict[str, str]:
    """Return what the files of a run state about its training."""
    text = read_metadata(weights).get("recipe")
    if text is None:
        raise InputError(f"models add: expected weights with the recipe of their run, got {weights}; train again.")
    recipe = read_yaml(text, str(weights))  # not checked: it may be that of an earlier version
    if not isinstance(recipe.get("scale"), int):
        raise InputError(
            f"models add: expected a run of one scale, got {recipe.get('scale')}; train a run of one scale."
        )
    (folder,) = read_run_folders([run])
    entries = {"method": recipe["method"]["kind"]}
    if folder.seconds is not None:
        entries["training_seconds"] = f"{folder.seconds:.0f}"
    if device := folder.environment.get("device"):
        entries["training_device"] = device
    return entries
