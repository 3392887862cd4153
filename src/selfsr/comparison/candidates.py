"""Find the weights files, run folders, shipped models and folders of finished images of a comparison."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfsr.errors import InputError
from selfsr.images.paths import list_images
from selfsr.nets.weights.detect import is_derived
from selfsr.nets.weights.find import find_model, is_folder_of_model
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.model import Model

BICUBIC = "bicubic"


@dataclass(frozen=True)
class Candidate:
    """A model, or a folder of finished images.

    Attributes:
        name: its name in tables and on pages; no two of a comparison are equal.
        source: the file, folder or name that the user wrote.
        weights: the weights file of a model; None for finished images.
        images: the finished images; empty for a model.
    """

    name: str
    source: str
    weights: Path | None
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """The facts about a model, read when it was opened once.

    Attributes:
        architecture: the network's name.
        scale: upscaling factor.
        channels: channels of the network's input.
        parameters: number of trained numbers.
    """

    architecture: str
    scale: int
    channels: int
    parameters: int


def find_candidates(sources: Sequence[str], names: Sequence[str] | None = None) -> list[Candidate]:
    """Find the models and folders that a user wrote.

    A folder with `recipe.yaml` is a run, and its best weights are used. Any other folder has finished images.

    Args:
        sources: weights files, run folders, names of shipped models, or folders of images; at least two.
        names: a name for each of them; None uses the names of the files, runs and folders.

    Raises:
        InputError: fewer than two sources, a missing one, another number of names, or a name that is used twice.
    """
    if len(sources) < 2:
        raise InputError(
            f"compare: expected at least two models or folders of images, got {len(sources)}; name another one, or use "
            "selfsr evaluate for one model."
        )
    if names is not None and len(names) != len(sources):
        raise InputError(
            f"compare: expected {len(sources)} names in --names, one for each model, got {len(names)}; separate them "
            "by commas."
        )
    found = [_find_candidate(source) for source in sources]
    chosen = [name.strip() for name in names] if names is not None else _choose_names(found)
    for name, count in Counter([*chosen, BICUBIC]).items():
        if count > 1 or not name:
            got = f"{name} twice" if name else "an empty one"
            raise InputError(
                f"compare: expected different names, got {got}; name each model once, with --names A,B,..."
            )
    return [Candidate(name, one.source, one.weights, one.images) for name, one in zip(chosen, found, strict=True)]


def open_model(candidate: Candidate, scale: int | None = None) -> Model:
    """Open the model of a candidate that has one.

    Args:
        candidate: the candidate.
        scale: the scale of a network with several scales.

    Raises:
        InputError: its file is not a model.
    """
    assert candidate.weights is not None, candidate.name
    return load_model(candidate.weights, scale)


def read_facts(candidates: Sequence[Candidate], scale: int | None) -> dict[str, ModelFacts]:
    """Open each model once, one at a time, and return the facts by name; folders of images have none.

    Args:
        candidates: the candidates.
        scale: the scale that the user asked for, needed for networks with several scales.

    Raises:
        InputError: a model cannot be opened, or has another scale than `scale` or than another model.
    """
    facts: dict[str, ModelFacts] = {}
    for candidate in candidates:
        if candidate.weights is None:
            continue
        model = open_model(candidate, scale)
        parameters = sum(tensor.numel() for key, tensor in model.net.named_parameters() if not is_derived(key))
        facts[candidate.name] = ModelFacts(model.architecture, model.scale, model.channels, parameters)
    check_scales({name: fact.scale for name, fact in facts.items()}, scale, "compare")
    return facts


def check_scales(scales: dict[str, int], scale: int | None, command: str) -> None:
    """Check that all models have the same scale: other scales have other inputs, so their scores are not comparable.

    Args:
        scales: the scale of each model by name.
        scale: the scale that the user asked for; None for any.
        command: the command, for the error.

    Raises:
        InputError: a model has another scale.
    """
    wanted = scale or next(iter(scales.values()), None)
    for name, own in scales.items():
        if own != wanted:
            which = (
                f"the scale {wanted} of --scale"
                if scale
                else f"one scale for all models, x{wanted} as {next(iter(scales))} has"
            )
            raise InputError(
                f"{command}: expected {which}, got x{own} ({name}), whose scores are not comparable; "
                f"run {command} once for each scale."
            )


def _find_candidate(source: str) -> Candidate:
    path = Path(source)
    if not path.is_dir():
        return Candidate(path.stem, source, find_model(source))
    name = path.resolve().name
    if is_folder_of_model(path):
        return Candidate(name, source, find_model(source))
    return Candidate(name, source, None, tuple(list_images(path)))


def _choose_names(found: Sequence[Candidate]) -> list[str]:
    """Return the short names; equal names get the names of the folders above them."""
    names = [one.name for one in found]
    if len(set(names)) == len(names):
        return names
    counts = Counter(names)
    return [
        f"{Path(one.source).resolve().parent.name}/{one.name}" if counts[one.name] > 1 else one.name for one in found
    ]
