"""`selfsr evaluate`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsr.cli.options import DeviceOption, SelfEnsembleOption
from selfsr.evaluation.metrics import METRICS, list_extra_metrics

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from selfsr.evaluation.benchmark import ImageSet, SetScores, UpscaleFn
    from selfsr.evaluation.metrics import MetricFn

EPILOG = """[bold]Examples[/bold]

selfsr evaluate best.safetensors --data Set5 --data Set14

selfsr evaluate 4xModel.pth --bicubic --data benchmark --out results.json --save-images out --per-image

selfsr evaluate gan.safetensors --data Set14 --metric self_similarity --metric lpips --metric dists

selfsr evaluate --bicubic --data mine=photos/test --scale 2

selfsr evaluate best.safetensors --data DIV2K=DIV2K_valid_HR --lr DIV2K_valid_LR_bicubic/X4

[bold]Protocol[/bold]

8-bit RGB. PSNR and SSIM on BT.601 studio-range luma (Y) and on RGB, peak 255, without a border of the scale. LR is made
by antialiased bicubic and rounded to 8 bit, unless --lr provides it. A network with one channel is evaluated by its own
Y; its colors are those of bicubic."""

_BETTER = "; ".join(
    f"{better} is better: {', '.join(name for name in list_extra_metrics() if METRICS[name].better == better)}"
    for better in ("higher", "lower")
    if any(METRICS[name].better == better for name in list_extra_metrics())
)


@dataclass(frozen=True)
class _Task:
    """The sets, the inputs and the metrics of one call.

    Attributes:
        sets: the sets by name.
        scale: the upscaling factor.
        lr: the folder of LR images, or None.
        border_px: pixels at each side that the scores leave out, or None for the scale.
        extra: further metrics by name.
        device: the device of the networks.
        images: the folder for the output images, or None.
    """

    sets: "dict[str, ImageSet]"
    scale: int
    lr: Path | None
    border_px: int | None
    extra: "dict[str, MetricFn]"
    device: "torch.device"
    images: Path | None


@dataclass(frozen=True)
class _Contestant:
    """An upscaler to evaluate.

    Attributes:
        title: its name in tables and results.
        upscale: the upscaler.
        luma_only: whether it is a network with one channel.
        options: the options that results of it name.
    """

    title: str
    upscale: "UpscaleFn"
    luma_only: bool
    options: dict[str, Any]


ModelArgument = Annotated[
    Path | None,
    typer.Argument(help="Weights file: .safetensors, .pth, .pt or .ckpt, of any network that spandrel knows."),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]DIR",
        help="Folder of HR images, or folder of such folders; NAME renames it in tables. Repeatable.",
    ),
]
EvaluateScaleOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Upscaling factor; default: that of the model. Needed without a model, and for networks with "
        "several scales.",
    ),
]
BicubicOption = Annotated[
    bool, typer.Option("--bicubic", help="Also evaluate bicubic upscaling, as a baseline; needs no model.")
]
LrOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of LR images with the names of the HR images; for several sets, with a folder for each. "
        "Default: made by bicubic. Use it for inputs with another degradation."
    ),
]
BorderOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Pixels at each side that the scores leave out; default: the scale. "
        "Change it only to compare with papers that do.",
    ),
]
OutOption = Annotated[Path | None, typer.Option(help="JSON file to write, with scores and protocol.")]
SaveImagesOption = Annotated[
    Path | None,
    typer.Option(help="Folder to write, with each output and a comparison of bicubic, output and HR."),
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option(
        help=f"Further metric next to PSNR and SSIM, for outputs with invented detail ({_BETTER}). Repeatable."
    ),
]
PerImageOption = Annotated[
    bool, typer.Option("--per-image", help="Print the scores of each image, not only the means.")
]
EvaluateTileOption = Annotated[
    str,
    typer.Option(
        help="Largest tile in pixels of LR, auto (measured from free memory) or off. "
        "Change it when memory runs out; tiles change the scores slightly."
    ),
]


def evaluate(
    model: ModelArgument = None,
    data: DataOption = None,
    scale: EvaluateScaleOption = None,
    bicubic: BicubicOption = False,
    lr: LrOption = None,
    border: BorderOption = None,
    out: OutOption = None,
    save_images: SaveImagesOption = None,
    metric: MetricOption = None,
    per_image: PerImageOption = False,
    device: DeviceOption = "auto",
    tile: EvaluateTileOption = "off",
    self_ensemble: SelfEnsembleOption = False,
) -> None:
    """Score a model, or bicubic, on sets of images by the protocol of the literature (in float32)."""
    from selfsr.errors import InputError
    from selfsr.evaluation.benchmark import find_sets, make_bicubic_upscaler
    from selfsr.evaluation.metrics import load_metrics
    from selfsr.machine.device import choose_device

    if model is None and not bicubic:
        raise InputError("evaluate: expected a model, --bicubic or both, got neither; name a weights file.")
    if not data:
        raise InputError("evaluate: expected a folder of images, got none; name one or more with --data.")
    sets = find_sets(data)
    chosen_device = choose_device(device)
    contestants: list[_Contestant] = []
    if model is not None:
        contestant, scale = _load(model, scale, chosen_device, {"tile": tile, "self_ensemble": self_ensemble})
        contestants.append(contestant)
    if scale is None:
        raise InputError("evaluate: expected --scale with --bicubic only, got none; add --scale 2, 3 or 4.")
    if bicubic:
        contestants.insert(0, _Contestant("bicubic", make_bicubic_upscaler(scale), False, {}))
    task = _Task(
        sets=sets,
        scale=scale,
        lr=lr,
        border_px=border,
        extra=dict(load_metrics(metric or (), chosen_device)),
        device=chosen_device,
        images=save_images,
    )
    results = _score(contestants, task)
    _show(results, scale, per_image)
    if out is not None:
        _write(out, results, contestants, task)


def _load(path: Path, scale: int | None, device: "torch.device", options: dict[str, Any]) -> tuple[_Contestant, int]:
    """Return a model as contestant, and its scale."""
    from selfsr.errors import InputError
    from selfsr.nets.weights.load import load_model
    from selfsr.upscaling.upscaler import Upscaler, parse_tile

    model = load_model(path, scale)
    if scale not in (None, model.scale):
        raise InputError(
            f"evaluate: expected --scale {model.scale}, the scale of {path}, got {scale}; leave --scale out, "
            "or choose another model."
        )
    upscaler = Upscaler(
        model,
        device=device,
        precision="float32",
        tile=parse_tile(options["tile"]),
        ensemble=options["self_ensemble"],
    )
    return _Contestant(str(path), upscaler, model.channels == 1, options), model.scale


def _score(contestants: list[_Contestant], task: _Task) -> "dict[str, dict[str, SetScores]]":
    """Score each upscaler on each set; write the images of the last upscaler, which is the model if there is one."""
    from selfsr.console import progress_bar
    from selfsr.evaluation.benchmark import evaluate_set
    from selfsr.images.pairing import pair_lr

    lr_paths: dict[str, list[Path] | None] = {}
    for name, image_set in task.sets.items():
        lr_folder = _choose_lr_folder(task, name)
        lr_paths[name] = lr_folder and pair_lr(image_set.folder, image_set.paths, lr_folder, task.scale)
    images = len(contestants) * sum(len(image_set.paths) for image_set in task.sets.values())
    results = {}
    with progress_bar("Evaluating", images) as advance:
        for contestant in contestants:
            folder = task.images if contestant is contestants[-1] else None
            results[contestant.title] = {
                name: evaluate_set(
                    contestant.upscale,
                    name,
                    image_set.paths,
                    scale=task.scale,
                    lr_paths=lr_paths[name],
                    device=task.device,
                    border_px=task.border_px,
                    extra=task.extra,
                    luma_only=contestant.luma_only,
                    on_image=folder and _make_image_writer(folder / name, task.scale),
                    advance=advance,
                )
                for name, image_set in task.sets.items()
            }
    return results


def _choose_lr_folder(task: _Task, name: str) -> Path | None:
    """Return the LR folder of a set: the subfolder with its name, or for a single set `--lr` itself."""
    if task.lr is None:
        return None
    for subfolder in (task.lr / name, task.lr / task.sets[name].folder.name):
        if subfolder.is_dir():
            return subfolder
    return task.lr if len(task.sets) == 1 else task.lr / name


def _make_image_writer(folder: Path, scale: int) -> "Callable[[str, Tensor, Tensor, Tensor], None]":
    """Return a function that writes an output, and a comparison: bicubic, output and ground truth side by side."""
    import torch

    from selfsr.images.files import DecodedImage, tensor_to_pixels, write_image
    from selfsr.images.resize import imresize

    def write(name: str, lr: "Tensor", sr: "Tensor", hr: "Tensor") -> None:
        gap = torch.ones(1, 3, hr.shape[2], 8)
        comparison = torch.cat([imresize(lr, scale=scale), gap, sr, gap, hr], dim=3)
        for suffix, image in (("", sr), ("_compare", comparison)):
            path = folder / f"{name}{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, DecodedImage(tensor_to_pixels(image[0])))

    return write


def _show(results: "dict[str, dict[str, SetScores]]", scale: int, per_image: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    def add_row(name: str, upscaler: str, count: str, values: dict[str, float], style: str = "") -> None:
        numbers = (f"{value:.{METRICS[metric].decimals}f}" for metric, value in values.items())
        table.add_row(name, upscaler, count, *numbers, style=style)

    table = Table(box=None, pad_edge=False)
    for title in (f"x{scale}", "upscaler"):
        table.add_column(title, overflow="fold")
    first = next(iter(next(iter(results.values())).values()))
    for title in ("images", *(METRICS[metric].title for metric in first.mean)):
        table.add_column(title, justify="right")
    for name in next(iter(results.values())):
        for upscaler, scored in results.items():
            if per_image:
                for image, values in scored[name].images.items():
                    add_row(f"{name}/{image}", Path(upscaler).name, "", values, style="dim")
            add_row(name, Path(upscaler).name, str(len(scored[name].images)), scored[name].mean)
    Console(highlight=False).print(table)


def _write(path: Path, results: "dict[str, dict[str, SetScores]]", contestants: list[_Contestant], task: _Task) -> None:
    import json

    from selfsr import __version__
    from selfsr.console import print_line
    from selfsr.evaluation.benchmark import describe_protocol

    record = {
        "selfsr": __version__,
        "protocol": describe_protocol(task.scale, task.border_px, None if task.lr is None else str(task.lr)),
        "results": [
            {
                "upscaler": contestant.title,
                **contestant.options,
                "sets": {name: scores.as_json() for name, scores in results[contestant.title].items()},
            }
            for contestant in contestants
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print_line(f"Scores: {path}")
