"""The demonstration: train, evaluate and upscale on sample photos, in minutes on a CPU."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from selfsr.console import console, print_line
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import UpscaleFn, evaluate_set, make_bicubic_upscaler
from selfsr.evaluation.metrics import METRICS, describe_better, load_metrics
from selfsr.fileio import write_atomic
from selfsr.images.files import DecodedImage, read_image, tensor_to_pixels, write_image
from selfsr.images.paths import list_images
from selfsr.losses.features import ARCHITECTURES
from selfsr.machine.device import choose_device
from selfsr.models import read_models
from selfsr.nets.weights.load import load_model
from selfsr.recipe import Recipe, load_recipe, shipped_recipes
from selfsr.report import write_report
from selfsr.training.loop import fit
from selfsr.upscaling.upscaler import Upscaler

# Photos of the scikit-image package.
_TRAIN = ("astronaut", "rocket", "immunohistochemistry", "hubble_deep_field", "retina", "brick", "grass", "gravel")
_TEST = ("chelsea", "coffee", "camera")

# Side of the part of a photo that comparisons show, in pixels.
_SHOWN_PX = 256


@dataclass(frozen=True)
class _ModelScores:
    name: str
    scores: dict[str, float]


def run_demo(out: Path, *, device: str = "auto") -> Path:
    """Run the demonstration and return the path of its report.

    Args:
        out: folder for photos, runs, scores, upscaled photos and the report; missing or empty.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        InputError: scikit-image is not installed, or `out` is not empty.
        KeyboardInterrupt: Ctrl-C stopped a training run.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"demo: expected an empty folder, got {out} with files; choose another folder with --out.")
    _print_part(1, "copying photos from the scikit-image package")
    train_photos, test_photos = _copy_photos(out / "photos")

    common = [f"data.hr={train_photos}", f"evaluate.sets={{held-out: {{hr: {test_photos}}}}}"]
    plain = _load_recipe("small_edsr_x2", "plain_l1", [*common, "method.terms.pixel.pace=null"])
    paced = _load_recipe("small_edsr_x2", "self_paced", common)
    _print_part(2, "training a small EDSR x2 with plain L1")
    plain_run = _train(plain, out, device)
    _print_part(3, "training the same network, self-paced")
    paced_run = _train(paced, out, device)

    better = max((plain_run, paced_run), key=lambda run: _read_last_scores(run)["psnr_y"])
    _print_part(4, f"continuing the better run, {better.name}, with the self-similarity loss")
    start = f"start_from={better / 'weights' / 'best.safetensors'}"
    similar_run = _train(_load_recipe("small_edsr_x2_similarity", "self_similarity", [*common, start]), out, device)

    _print_part(5, "evaluating all runs on held-out photos")
    runs = [plain_run, paced_run, similar_run]
    scores = _evaluate(runs, test_photos, device)
    write_atomic(out / "scores.json", json.dumps({entry.name: entry.scores for entry in scores}, indent=2) + "\n")
    _print_part(6, "upscaling a photo and writing the report")
    _upscale(similar_run, test_photos, out, device)
    report = _finish(out, runs, better, scores)
    _print_part(7, "upscaling the photos x4 by the models of the package")
    compare_models(4, test_photos, out / "x4", device=device)
    print_line(f"Comparisons: {out / 'x4'}")
    print_line(f"Report: {report}")
    return report


def _print_part(part: int, title: str) -> None:
    console.rule(f"{part} of 7  {title}", align="left")


def _copy_photos(folder: Path) -> tuple[Path, Path]:
    try:
        import skimage
    except ImportError as error:
        raise InputError(
            'demo: the photos need scikit-image, which is not installed; install it with pip install "selfsr[demo]".'
        ) from error
    source = Path(skimage.__file__).parent / "data"
    files = {"immunohistochemistry": "ihc.png", "rocket": "rocket.jpg", "retina": "retina.jpg"}
    files["hubble_deep_field"] = "hubble_deep_field.jpg"
    folders = []
    for kind, names in (("train", _TRAIN), ("held-out", _TEST)):
        folders.append(folder / kind)
        for name in names:
            photo = read_image(source / files.get(name, f"{name}.png"))
            write_image(folder / kind / f"{name}.png", DecodedImage(photo.pixels))
    return folders[0], folders[1]


def _load_recipe(shipped: str, name: str, settings: list[str]) -> Recipe:
    return load_recipe(shipped_recipes()[shipped], [f"name={name}", *settings])


def _train(recipe: Recipe, out: Path, device: str) -> Path:
    folder = out / "runs" / recipe.name
    if not fit(recipe, folder, device=device):
        raise KeyboardInterrupt
    return folder


def _read_last_scores(run: Path) -> dict[str, float]:
    last = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
    return next(iter(last["sets"].values()))["mean"]


def _evaluate(runs: list[Path], photos: Path, device: str) -> list[_ModelScores]:
    torch_device = choose_device(device)
    paths = list_images(photos)
    entries = [
        _ModelScores(
            "bicubic", evaluate_set(make_bicubic_upscaler(2), "held-out", paths, scale=2, device=torch_device).mean
        )
    ]
    for run in runs:
        model = load_model(_get_weights(run))
        model.net.to(torch_device)
        scores = evaluate_set(model.upscale, "held-out", paths, scale=model.scale, device=torch_device)
        entries.append(_ModelScores(run.name, scores.mean))
    return entries


def _get_weights(run: Path) -> Path:
    return run / "weights" / "last.safetensors"


def _upscale(run: Path, photos: Path, out: Path, device: str) -> None:
    photo = list_images(photos)[0]
    upscaler = Upscaler(load_model(_get_weights(run)), device=choose_device(device))
    write_image(out / "upscaled" / f"{photo.stem}_x2.png", upscaler.upscale_image(read_image(photo), scratch=out))


def _finish(out: Path, runs: list[Path], better: Path, entries: list[_ModelScores]) -> Path:
    report = write_report(runs, out / "report.html", against=better)
    _print_scores("Held-out photos, x2 (luma, without a border of 2 px)", entries)
    print_line(f"Images: {out / 'upscaled'} and {out / 'runs'}/*/samples")
    return report


def compare_models(scale: int, photos: Path, out: Path, *, device: str = "auto") -> list[_ModelScores]:
    """Upscale photos by the shipped models of a scale, print their scores, and write the centers side by side.

    From left to right: bicubic, each model, and the photo itself. LPIPS is among the scores if its weights are on disk.

    Args:
        scale: upscaling factor.
        photos: folder of the photos.
        out: folder for an image of each photo, and for scores.json.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        The scores of bicubic and of each model.

    Raises:
        InputError: a photo cannot be read.
    """
    torch_device = choose_device(device)
    upscalers: dict[str, UpscaleFn] = {"bicubic": make_bicubic_upscaler(scale)}
    for card in read_models().values():
        if card.scale == scale:
            model = load_model(card.path)
            model.net.to(torch_device)
            upscalers[card.name] = model.upscale
    weights = ARCHITECTURES["alexnet"].weights.path
    extra = load_metrics(["lpips"], torch_device, {}) if weights.is_file() else {}
    rows: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, lr: torch.Tensor, sr: torch.Tensor, hr: torch.Tensor) -> None:  # noqa: ARG001
        rows.setdefault(name, [_crop_center(hr)]).insert(-1, _crop_center(sr))

    entries = []
    for name, upscale in upscalers.items():
        scores = evaluate_set(
            upscale, "photos", list_images(photos), scale=scale, device=torch_device, extra=extra, on_image=keep
        )
        entries.append(_ModelScores(name, scores.mean))
    for name, images in rows.items():
        write_image(out / f"{name}.png", DecodedImage(tensor_to_pixels(torch.cat(images, dim=-1)[0])))
    _print_scores(f"The same photos, x{scale} (luma, without a border of {scale} px)", entries)
    if not extra:
        print_line(f"LPIPS is left out: its weights {weights.name} are not in {weights.parent}.")
    write_atomic(out / "scores.json", json.dumps({entry.name: entry.scores for entry in entries}, indent=2) + "\n")
    return entries


def _crop_center(image: torch.Tensor) -> torch.Tensor:
    """Return the center of `[1, 3, H, W]`, at most `_SHOWN_PX` high and wide."""
    height, width = image.shape[-2:]
    top, left = max(0, height - _SHOWN_PX) // 2, max(0, width - _SHOWN_PX) // 2
    return image[..., top : top + _SHOWN_PX, left : left + _SHOWN_PX]


def _print_scores(title: str, entries: list[_ModelScores]) -> None:
    """Print a table of scores; the first entry is bicubic, which gains are counted from."""
    shown = [metric for metric in ("ssim_y", "lpips") if metric in entries[0].scores]
    table = Table(title=title, box=None)
    for heading in ("", "PSNR-Y", "gain over bicubic", *(METRICS[metric].title for metric in shown)):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for entry in entries:
        gain = entry.scores["psnr_y"] - entries[0].scores["psnr_y"]
        table.add_row(
            entry.name,
            f"{entry.scores['psnr_y']:.2f} dB",
            "" if entry is entries[0] else f"{gain:+.2f} dB",
            *(METRICS[metric].format_score(entry.scores[metric]) for metric in shown),
        )
    Console().print(table)
    print_line(describe_better(["psnr_y", *shown]))
