"""Export a model for others: weights files in several precisions, ONNX, a README and an entry for OpenModelDB."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from selfsr import __version__
from selfsr.errors import InputError, find_similar
from selfsr.evaluation.metrics import load_metrics
from selfsr.evaluation.sets import ImageSet
from selfsr.fileio import check_writable, write_atomic
from selfsr.models.card_options import CardOptions
from selfsr.models.comparison import check_difference, choose_sizes, measure_difference
from selfsr.models.names import check_model_name, describe_unknown_names
from selfsr.models.onnx_file import check_onnx, make_onnx
from selfsr.models.openmodeldb import ExportedFile, NetworkFacts, make_entry
from selfsr.models.pairs import Pair, plan_pairs, write_pair
from selfsr.models.readme import write_readme
from selfsr.models.scores import score_model
from selfsr.models.training_facts import TrainingFacts, read_training_facts
from selfsr.nets.base import NETWORK_ENTRY, StatedNetwork
from selfsr.nets.spandrel.adapted import NOISE_SEED
from selfsr.nets.weights.detect import is_derived
from selfsr.nets.weights.find import find_model
from selfsr.nets.weights.load import load_model, read_metadata
from selfsr.nets.weights.model import Model
from selfsr.nets.weights.save import save_weights
from selfsr.recipe.private import hide_folders_in_json, hide_metadata
from selfsr.upscaling.upscaler import Upscaler

Precision = Literal["float32", "float16", "bfloat16"]

_DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ENDINGS = {"float32": "", "float16": "_fp16", "bfloat16": "_bf16"}


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        precisions: precisions of the safetensors files.
        pth: also write a .pth file in float32.
        onnx: precisions of the ONNX files, float32 or float16.
        opset: version of ONNX's operators.
        fixed_px: side of the only input that the ONNX files accept, in pixels; None lets sizes vary where possible.
        scale: the scale of a network of several.
        sets: sets to evaluate on, by name.
        metrics: further metrics of the evaluation.
        photos: photos from which pairs of LR and SR images are made.
        overwrite: replace files that exist.
    """

    precisions: tuple[Precision, ...] = ("float32", "float16")
    pth: bool = False
    onnx: tuple[Precision, ...] = ()
    opset: int = 17
    fixed_px: int | None = None
    scale: int | None = None
    sets: Mapping[str, ImageSet] = field(default_factory=dict)
    metrics: Sequence[str] = ()
    photos: Sequence[Path] = ()
    overwrite: bool = False


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        folder: the folder of the files.
        files: the files of the network.
        written: the names of all files, below the folder.
        notes: one sentence about each thing that was left out.
    """

    folder: Path
    files: list[ExportedFile]
    written: list[str]
    notes: list[str]


def read_precisions(names: Iterable[str]) -> tuple[Precision, ...]:
    """Return precisions by their names, each once.

    Raises:
        InputError: there is no such precision.
    """
    for name in names:
        if name not in _DTYPES:
            near = find_similar(name, _DTYPES)
            advice = f"did you mean {near}?" if near else "choose one of them."
            raise InputError(f"--precision: expected one of {', '.join(_DTYPES)}, got {name!r}; {advice}")
    return tuple(cast(Precision, name) for name in dict.fromkeys(names))


def export_model(
    model: str,
    folder: Path,
    name: str,
    card: CardOptions,
    options: ExportOptions,
    *,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
) -> Export:
    """Write the files of a model, each compared with the network in float32, with a README and an OpenModelDB entry.

    All files are made and compared before the first is written, and each is written atomically.

    Args:
        model: a weights file, the name of a shipped model, or a run folder, whose best weights are used.
        folder: the folder of the files; other files in it stay as they are.
        name: the model's name, such as "4x-waves".
        card: what its maker states.
        options: which files to write.
        device: the device that evaluates and makes images.
        report: called with a line about each file, as soon as it is compared.

    Raises:
        InputError: the model, the name or an option is wrong, a file exists, or a file differs too much.
        OSError: a file cannot be read or written.
    """
    source = find_model(model)
    network = load_model(source, options.scale)
    check_model_name(name, network.scale)
    if options.onnx:
        check_onnx(network, options.opset)
    pairs = plan_pairs(options.photos)
    _check_targets(folder, _list_names(name, card, options, pairs), options.overwrite)
    extra = load_metrics(options.metrics, device, {title: len(images.paths) for title, images in options.sets.items()})

    facts = read_training_facts(source)
    stated = {key: hide_folders_in_json(text) for key, text in _state_network(network.net).items()}
    contents = _Contents(name, network, {**_make_metadata(source, card), **stated}, report)
    for precision in options.precisions:
        contents.add_weights(f"{name}{_ENDINGS[precision]}.safetensors", precision)
    if options.pth:
        contents.add_weights(f"{name}.pth", "float32")
    for precision in options.onnx:
        contents.add_onnx(precision, options)
    description = _describe_network(network, contents)
    with tempfile.TemporaryDirectory(prefix="selfsr-") as temporary:
        images = Path(temporary)
        scores = score_model(network, options.sets, extra, device)
        _make_images(options.photos, pairs, network, images, device)
        contents.add_texts(description, facts, card, pairs, scores)
        for path in sorted(images.iterdir()):
            contents.others[f"images/{path.name}"] = path.read_bytes()
    for file_name, content in contents.all().items():
        write_atomic(folder / file_name, content)
    return Export(folder, contents.files, list(contents.all()), contents.notes)


class _Contents:
    """The files of an export before they are written."""

    def __init__(self, name: str, model: Model, metadata: dict[str, str], report: Callable[[str], None]) -> None:
        self.name, self.model, self.metadata, self._report = name, model, metadata, report
        self.files: list[ExportedFile] = []
        self.others: dict[str, bytes] = {}
        self.notes: list[str] = []
        self.spandrel: Any = None
        self._networks: dict[str, bytes] = {}

    def all(self) -> dict[str, bytes]:
        """Return the content of every file by its name; the README comes last."""
        return {**self._networks, **self.others}

    def add_weights(self, name: str, precision: str) -> None:
        """Make and compare a weights file."""
        dtype = _DTYPES[precision]
        with tempfile.TemporaryDirectory(prefix="selfsr-") as temporary:
            path = Path(temporary) / name
            # For an autoencoder in another folder, the comparison needs the complete path.
            save_weights(path, self.model.net, {**self.metadata, **_state_network(self.model.net)}, dtype=dtype)
            again = load_model(path, self.model.scale)
            half = precision != "float32"
            sizes = choose_sizes(self.model)
            difference = measure_difference(again.upscale, self.model.upscale, self.model.channels, sizes)
            check_difference(name, difference, half=half)
            if self.spandrel is None and not self.model.is_diffusion:
                self.spandrel = _open_in_spandrel(path)
            if self.spandrel:
                other = _draw_same_noise(_open_in_spandrel(path))
                difference_there = measure_difference(other, self.model.upscale, self.model.channels, sizes)
                check_difference(f"{name} in spandrel", difference_there, half=half)
            save_weights(path, self.model.net, self.metadata, dtype=dtype)
            self._add(name, path.read_bytes(), precision, str(difference), _describe_needs(self.metadata))

    def add_onnx(self, precision: str, options: ExportOptions) -> None:
        """Make and compare an ONNX file."""
        half = precision == "float16"
        onnx = make_onnx(self.model, opset=options.opset, half=half, fixed_px=options.fixed_px)
        notes = [f"opset {options.opset}"]
        if onnx.fixed_px is None:
            sides = "any size" if onnx.multiple_of_px == 1 else f"sides in multiples of {onnx.multiple_of_px} px"
            least_px = self.model.minimum_px
            notes.append(sides if least_px <= onnx.multiple_of_px else f"{sides} from {least_px} px")
        else:
            notes.append(f"only {onnx.fixed_px[0]} x {onnx.fixed_px[1]} px")
            if onnx.reason:
                notes.append(f"because {onnx.reason}")
        notes += ["one image at a time"] if onnx.single else []
        ending = "_fp16" if half else "_fp32"
        self._add(f"{self.name}{ending}.onnx", onnx.content, precision, str(onnx.difference), ", ".join(notes))

    def add_texts(
        self,
        network: NetworkFacts,
        facts: TrainingFacts,
        card: CardOptions,
        pairs: Sequence[Pair],
        scores: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Make the README, and the entry for OpenModelDB if the author is known."""
        images = [(pair.lr, pair.sr) for pair in pairs]
        if card.author:
            entry = make_entry(self.name, network, facts, card, self.files, images)
            text = json.dumps(entry, indent=4, ensure_ascii=False) + "\n"
            self.others[f"{self.name}.json"] = text.encode()
            self.notes += describe_unknown_names(card.tags, card.license)
            if card.url is None:
                self.notes.append("The OpenModelDB entry has no addresses of the files; add them with --url.")
        else:
            self.notes.append("No OpenModelDB entry was written, because it needs an author; add --author.")
        if card.license is None:
            self.notes.append("The model has no license, so that others may not use it; add --license.")
        readme = write_readme(self.name, network, facts, card, self.files, pairs, scores)
        self.others["README.md"] = readme.encode()

    def _add(self, name: str, content: bytes, precision: str, difference: str, note: str = "") -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        self.files.append(ExportedFile(name, len(content), sha256, precision, difference, note))
        self._networks[name] = content
        self._report(f"{name}: {difference}{f' ({note})' if note else ''}")


def _list_names(name: str, card: CardOptions, options: ExportOptions, pairs: Sequence[Pair]) -> list[str]:
    """Return the names of all files that an export will write."""
    names = [f"{name}{_ENDINGS[precision]}.safetensors" for precision in options.precisions]
    names += [f"{name}.pth"] if options.pth else []
    names += [f"{name}_{'fp16' if precision == 'float16' else 'fp32'}.onnx" for precision in options.onnx]
    names += ["README.md"] + ([f"{name}.json"] if card.author else [])
    for pair in pairs:
        names += [f"images/{image}" for image in (pair.lr, pair.sr, pair.lr_thumbnail, pair.sr_thumbnail)]
    return names


def _check_targets(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"export: expected a folder for the files, got the file {folder}; choose another name.")
    existing = [name for name in names if (folder / name).exists()]
    if existing and not overwrite:
        rest = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(
            f"export: expected new files in {folder}, got {existing[0]}{rest}, which exist; add --overwrite, or choose "
            "another folder."
        )
    for name in names:
        check_writable(folder / name)


def _make_metadata(source: Path, card: CardOptions) -> dict[str, str]:
    """Return the metadata of the exported files, without folders and without entries of other programs."""
    metadata = {"selfsr": __version__, **hide_metadata(read_metadata(source))}
    stated = {"license": card.license or "", "training_data": card.dataset, "author": ", ".join(card.author)}
    return metadata | {key: text for key, text in stated.items() if text}


def _state_network(net: nn.Module) -> dict[str, str]:
    """Return the entry that states the network, with complete paths; {} for a network of another program."""
    entries = net.file_metadata() if isinstance(net, StatedNetwork) else {}
    return {key: text for key, text in entries.items() if key == NETWORK_ENTRY}


def _describe_needs(metadata: Mapping[str, str]) -> str:
    """Return the other files that a weights file needs, as a sentence; empty for most."""
    space = json.loads(metadata.get(NETWORK_ENTRY, "{}")).get("space")
    if not isinstance(space, dict):
        return ""
    return f"needs the folder {space['autoencoder']} of the autoencoder next to it"


def _open_in_spandrel(path: Path) -> Any:
    """Return spandrel's descriptor of a file, in float32; False if spandrel does not know the network."""
    import spandrel

    try:
        descriptor = spandrel.ModelLoader(device="cpu").load_from_file(path)
    except Exception:  # of a network that it takes for another, many kinds
        return False
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        return False
    return descriptor.float().eval()


def _draw_same_noise(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a network that draws the noise of our own evaluation, if it draws any."""

    def seeded(image: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(NOISE_SEED)
            return run(image)

    return seeded


def _describe_network(model: Model, contents: _Contents) -> NetworkFacts:
    descriptor = contents.spandrel
    return NetworkFacts(
        architecture=descriptor.architecture.id if descriptor else model.architecture,
        scale=model.scale,
        input_channels=model.channels,
        output_channels=descriptor.output_channels if descriptor else model.channels,
        size=tuple(descriptor.tags) if descriptor else (),
        opens_in_spandrel=bool(descriptor),
        parameters=sum(tensor.numel() for name, tensor in model.net.named_parameters() if not is_derived(name)),
    )


def _make_images(
    photos: Sequence[Path], pairs: Sequence[Pair], model: Model, folder: Path, device: torch.device
) -> None:
    if not photos:
        return
    upscaler = Upscaler(model, device=device, precision="float32")
    for path, pair in zip(photos, pairs, strict=True):
        write_pair(path, pair, upscaler, folder)
