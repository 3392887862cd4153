"""The entry of a model in OpenModelDB, in the form of its data/models/NAME.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfsr.models.card import PURPOSE
from selfsr.models.card_options import CardOptions, today
from selfsr.models.names import is_model_name, make_architecture_id, make_id
from selfsr.models.training_facts import TrainingFacts

# The tag of a model without tags.
_DEFAULT_TAGS = {True: "general-upscaler", False: "restoration"}


@dataclass(frozen=True)
class ExportedFile:
    """A file of an exported model.

    Attributes:
        name: its name.
        size: bytes.
        sha256: checksum in hexadecimal.
        precision: "float32", "float16" or "bfloat16".
        difference: how far it is from the float32 network, in words.
        note: limits of use; empty if there are none.
    """

    name: str
    size: int
    sha256: str
    precision: str
    difference: str
    note: str = ""

    @property
    def type(self) -> str:
        """Its type: "safetensors", "pth" or "onnx"."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class NetworkFacts:
    """What the files show about the network.

    Attributes:
        architecture: its name, by spandrel if spandrel knows it.
        scale: upscaling factor.
        input_channels: channels of the input.
        output_channels: channels of the output.
        size: spandrel's tags of the size, such as "64nf"; empty if there are none.
        opens_in_spandrel: whether spandrel, and so chaiNNer and ComfyUI, open the files.
        parameters: number of parameters.
    """

    architecture: str
    scale: int
    input_channels: int
    output_channels: int
    size: tuple[str, ...]
    opens_in_spandrel: bool
    parameters: int


def make_entry(
    name: str,
    network: NetworkFacts,
    training: TrainingFacts,
    card: CardOptions,
    files: Sequence[ExportedFile],
    pairs: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Return the entry, with the keys of OpenModelDB's schema; what is unknown is left out.

    OpenModelDB makes thumbnails by itself and refuses entries with them.

    Args:
        name: the model's name, such as "4x-waves".
        network: facts about the network.
        training: facts about its training.
        card: what its maker states; needs an author.
        files: the files, of which those in float32 come first.
        pairs: names of LR and SR images.
    """
    start = card.pretrained_model_g or training.start_model.rpartition(".")[0]
    optional = {
        "trainingIterations": training.steps,
        "trainingBatchSize": training.batch,
        "trainingHRSize": training.crop_px,
        "trainingOTF": training.degrades,
        "dataset": card.dataset or training.dataset or None,
        "datasetSize": card.dataset_size or training.dataset_size,
        "pretrainedModelG": start if is_model_name(start) else None,
        "pretrainedModelD": card.pretrained_model_d,
    }
    return {
        "name": name.partition("-")[2],
        "author": _one_or_all([make_id(author) for author in card.author]),
        "license": card.license,
        "tags": list(card.tags) or [_DEFAULT_TAGS[network.scale > 1]],
        "description": card.description or describe_purpose(network, training),
        "date": card.date or today(),
        "architecture": make_architecture_id(network.architecture),
        "size": list(network.size) or None,
        "scale": network.scale,
        "inputChannels": network.input_channels,
        "outputChannels": network.output_channels,
        "resources": [_make_resource(file, card.url) for file in files],
        **{key: value for key, value in optional.items() if value is not None},
        "images": [
            {"type": "paired", "LR": _make_url(f"images/{lr}", card.url), "SR": _make_url(f"images/{sr}", card.url)}
            for lr, sr in pairs
        ],
    }


def describe_purpose(network: NetworkFacts, training: TrainingFacts) -> str:
    """Return one or two sentences about what the model does, for a card whose maker has written none."""
    does = f"upscales images {network.scale} times" if network.scale > 1 else "restores images"
    purpose = PURPOSE.get(training.method, "")
    return f"{network.architecture}, a network that {does}.{' ' + purpose if purpose else ''}"


def _make_resource(file: ExportedFile, url: str | None) -> dict[str, Any]:
    return {
        "platform": "onnx" if file.type == "onnx" else "pytorch",
        "type": file.type,
        "size": file.size,
        "sha256": file.sha256,
        "urls": [] if url is None else [_make_url(file.name, url)],
    }


def _make_url(name: str, url: str | None) -> str:
    return name if url is None else f"{url.rstrip('/')}/{name}"


def _one_or_all(names: list[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else names
