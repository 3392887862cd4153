"""`selfsr evaluate`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from selfsr.evaluation.benchmark import Extra, SetScores

EPILOG = """[bold]Examples[/bold]

selfsr evaluate best.safetensors --data Set5 --data Set14

selfsr evaluate 4xModel.pth --bicubic --data benchmark --out results.json --pictures out --per-image

selfsr evaluate gan.safetensors --data Set14 --metric self_similarity --metric lpips --metric dists

selfsr evaluate --bicubic --data mine=photos/test --scale 2

selfsr evaluate best.safetensors --data DIV2K=DIV2K_valid_HR --lr DIV2K_valid_LR_bicubic/X4

[bold]Protocol[/bold]

8-bit RGB; PSNR and SSIM on BT.601 studio-range luma (Y) and on RGB, peak 255, a border of the scale left out; LR by
antialiased bicubic, rounded to 8 bit, unless --lr brings it. A network of luma alone is judged by its own Y; its
colors are those of bicubic."""


def evaluate(
    model: Annotated[
        Path | None, typer.Argument(help="Weights: .safetensors, .pth, .pt or .ckpt, of any network spandrel knows.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Folder of HR pictures, DIR or NAME=DIR; or a folder of such folders. May be given often."),
    ] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="Upscaling factor; the model's, if not given.")] = None,
    bicubic: Annotated[
        bool, typer.Option("--bicubic", help="Judge bicubic interpolation, with a model or alone.")
    ] = False,
    lr: Annotated[
        Path | None, typer.Option(help="Folder of LR pictures, matched by name; for several sets a folder of theirs.")
    ] = None,
    border: Annotated[
        int | None, typer.Option(min=0, help="Border in pixels that the scores leave out; the scale, if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write scores and protocol to this JSON file.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write the outputs here, each with a comparison: bicubic, output, HR.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A score beside PSNR and SSIM, lower is better: self_similarity, lpips or dists; may be given often."
        ),
    ] = None,
    per_image: Annotated[bool, typer.Option("--per-image", help="Show every picture's scores, too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    tile: Annotated[str, typer.Option(help="off, auto, or the largest tile in pixels of LR.")] = "off",
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", help="Average over the 8 flips and rotations: slower by 8.")
    ] = False,
) -> None:
    """Score a model, or bicubic, on sets of pictures by the protocol of the literature (in float32)."""
    from selfsr.errors import InputError
    from selfsr.evaluation.benchmark import bicubic_upscaler, find_sets
    from selfsr.evaluation.perceptual import load_metrics
    from selfsr.machine.device import choose_device
    from selfsr.nets.weights.load import load_model
    from selfsr.upscaling.upscaler import Upscaler, parse_tile

    if model is None and not bicubic:
        raise InputError("evaluate: expected a model, --bicubic or both; name a weights file or add --bicubic.")
    if not data:
        raise InputError("evaluate: expected a folder of pictures; name one or more with --data.")
    sets = find_sets(data)
    where = choose_device(device)
    upscalers: dict[str, Callable[[Tensor], Tensor]] = {}
    luma_alone: set[str] = set()
    if model is not None:
        loaded = load_model(model, scale)
        if scale not in (None, loaded.scale):
            raise InputError(
                f"evaluate: {model} upscales x{loaded.scale}, --scale says {scale}; leave --scale out, "
                "or choose another model."
            )
        scale = loaded.scale
        upscalers[str(model)] = Upscaler(
            loaded, device=where, precision="float32", tile=parse_tile(tile), ensemble=self_ensemble
        )
        luma_alone = {str(model)} if loaded.channels == 1 else set()
    if scale is None:
        raise InputError("evaluate: --bicubic alone needs the factor; add --scale 2, 3 or 4.")
    if bicubic:
        upscalers = {"bicubic": bicubic_upscaler(scale), **upscalers}
    further = load_metrics(metric or (), where)
    results = _scores(upscalers, luma_alone, sets, lr, scale, border, further, where, pictures)
    _show(results, scale, per_image)
    if out is not None:
        _write(out, results, scale, border, lr, {"tile": tile, "self_ensemble": self_ensemble})


def _scores(
    upscalers: "dict[str, Callable[[Tensor], Tensor]]",
    luma_alone: set[str],
    sets: dict[str, list[Path]],
    lr: Path | None,
    scale: int,
    border: int | None,
    extra: "Extra",
    device: "torch.device",
    pictures: Path | None,
) -> "dict[str, dict[str, SetScores]]":
    """Score each upscaler on each set; write the pictures of the last upscaler, which is the model if there is one."""
    from selfsr.console import bar
    from selfsr.evaluation.benchmark import evaluate_set, pair_lr

    lr_folders = {name: lr if lr is None or len(sets) == 1 else lr / name for name in sets}
    lr_paths = {name: folder and pair_lr(sets[name], folder, scale) for name, folder in lr_folders.items()}
    results = {}
    with bar("Judging", len(upscalers) * sum(map(len, sets.values()))) as advance:
        for title, upscale in upscalers.items():
            drawn = pictures if title == list(upscalers)[-1] else None
            results[title] = {
                name: evaluate_set(
                    upscale,
                    name,
                    paths,
                    scale=scale,
                    lr_paths=lr_paths[name],
                    device=device,
                    border_px=border,
                    extra=extra,
                    luma_alone=title in luma_alone,
                    on_image=drawn and _drawer(drawn / name, scale),
                    advance=advance,
                )
                for name, paths in sets.items()
            }
    return results


def _drawer(folder: Path, scale: int) -> "Callable[[str, Tensor, Tensor, Tensor], None]":
    """Return what writes an output, and beside it bicubic, output and ground truth next to each other."""
    import torch

    from selfsr.images.files import Picture, from_tensor, write_picture
    from selfsr.images.resize import imresize

    def draw(name: str, lr: "Tensor", sr: "Tensor", hr: "Tensor") -> None:
        gap = torch.ones(1, 3, hr.shape[2], 8)
        sheet = torch.cat([imresize(lr, scale=scale), gap, sr, gap, hr], dim=3)
        for suffix, image in (("", sr), ("_compare", sheet)):
            path = folder / f"{name}{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, Picture(from_tensor(image[0])))

    return draw


def _show(results: "dict[str, dict[str, SetScores]]", scale: int, per_image: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from selfsr.evaluation.metrics import METRICS

    def row(name: str, upscaler: str, count: str, values: dict[str, float], style: str = "") -> None:
        told = (f"{value:.{METRICS[metric].decimals}f}" for metric, value in values.items())
        table.add_row(name, upscaler, count, *told, style=style)

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
                    row(f"{name}/{image}", Path(upscaler).name, "", values, style="dim")
            row(name, Path(upscaler).name, str(len(scored[name].images)), scored[name].mean)
    Console(highlight=False).print(table)


def _write(
    out: Path,
    results: "dict[str, dict[str, SetScores]]",
    scale: int,
    border: int | None,
    lr: Path | None,
    options: dict[str, Any],
) -> None:
    import json

    from selfsr import __version__
    from selfsr.console import print_line
    from selfsr.evaluation.benchmark import protocol

    record = {
        "selfsr": __version__,
        "protocol": protocol(scale, border, None if lr is None else str(lr)),
        "results": [
            {
                "upscaler": upscaler,
                **({} if upscaler == "bicubic" else options),
                "sets": {name: scores.as_json() for name, scores in scored.items()},
            }
            for upscaler, scored in results.items()
        ],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print_line(f"Scores: {out}")
