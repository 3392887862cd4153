"""Find the models of the package by name, and read the metadata of their files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfsr.errors import InputError
from selfsr.nets.weights.find import SHIPPED_FOLDER, list_shipped_files
from selfsr.nets.weights.load import read_metadata

# The entries that `add_model` adds to the metadata of a weights file.
CARD_ENTRIES = ("method", "scores", "training_data", "license", "recipe", "scale", "step")


@dataclass(frozen=True)
class ModelCard:
    """The facts about a model, from the metadata of its weights file.

    Attributes:
        name: its name, that of the file without its suffix.
        path: the weights file.
        network: kind of the network, as in a recipe.
        scale: upscaling factor.
        method: "regression" for the highest PSNR, or "gan" for perceptual quality.
        steps: optimizer steps of its training.
        scores: means by set and metric.
        training_data: names of its training images.
        terms: terms of use of the training images, one Markdown paragraph.
        license: license of the weights file.
        recipe: the complete recipe as YAML.
        seconds: time of its training; None if unknown.
        device: device of its training; empty if unknown.
    """

    name: str
    path: Path
    network: str
    scale: int
    method: str
    steps: int
    scores: Mapping[str, Mapping[str, float]]
    training_data: str
    terms: str
    license: str
    recipe: str
    seconds: float | None
    device: str


def read_models() -> dict[str, ModelCard]:
    """Return the models of the package by name: the networks for PSNR first, then by scale."""
    cards = [read_card(path) for path in list_shipped_files()]
    return {card.name: card for card in sorted(cards, key=lambda card: (card.method == "gan", card.scale, card.name))}


def choose_model(scale: int) -> ModelCard:
    """Return the shipped model with the highest PSNR for a scale.

    If no model has the scale, this is the model with the next larger scale, whose output is then reduced, or else the
    model with the largest scale.

    Raises:
        InputError: this installation has no models.
    """
    cards = [card for card in read_models().values() if card.method == "regression"]
    if not cards:
        raise InputError(
            f"model: expected models in {SHIPPED_FOLDER}, got none; name a weights file with -m, or install selfsr "
            "again."
        )
    larger = [card for card in cards if card.scale >= scale]
    return min(larger, key=lambda card: card.scale) if larger else max(cards, key=lambda card: card.scale)


def read_card(path: Path) -> ModelCard:
    """Return the facts that `add_model` has written into a weights file.

    Raises:
        InputError: the file is not a weights file, or has no such metadata.
        OSError: the file cannot be read.
    """
    metadata = read_metadata(path)
    missing = [entry for entry in CARD_ENTRIES if not metadata.get(entry)]
    if missing:
        raise InputError(
            f"{path}: expected a weights file with the metadata of selfsr models add, got one without "
            f"{', '.join(missing)}; add it from its run folder."
        )
    try:
        return _parse_card(path, metadata)
    except ValueError as error:
        raise InputError(
            f"{path}: expected numbers and scores in its metadata, got others ({error}); add it from its run folder."
        ) from error


def _parse_card(path: Path, metadata: Mapping[str, str]) -> ModelCard:
    seconds = metadata.get("training_seconds")
    return ModelCard(
        name=path.stem,
        path=path,
        network=metadata.get("architecture", ""),
        scale=int(metadata["scale"]),
        method=metadata["method"],
        steps=int(metadata["step"]),
        scores=json.loads(metadata["scores"]),
        training_data=metadata["training_data"],
        terms=metadata.get("training_data_terms", ""),
        license=metadata["license"],
        recipe=metadata["recipe"],
        seconds=None if seconds is None else float(seconds),
        device=metadata.get("training_device", ""),
    )
