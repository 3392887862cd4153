"""The main job on real photos, in minutes on a CPU: train twice, continue once, judge, upscale, report."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from selfsr.console import console, print_line
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import bicubic_upscaler, evaluate_set
from selfsr.images.files import Picture, read_picture, write_picture
from selfsr.images.paths import list_pictures
from selfsr.machine.device import choose_device
from selfsr.nets.weights.load import load_model
from selfsr.recipe import Recipe, load_recipe, shipped_recipes
from selfsr.report import write_report
from selfsr.training.loop import fit
from selfsr.upscaling.upscaler import Upscaler

# Photographs inside the scikit-image package. The last ones are judged on and never trained on.
_TRAIN = ("astronaut", "rocket", "immunohistochemistry", "hubble_deep_field", "retina", "brick", "grass", "gravel")
_TEST = ("chelsea", "coffee", "camera")


@dataclass(frozen=True)
class _Entry:
    name: str
    scores: dict[str, float]


def run_demo(out: Path, *, device: str = "auto") -> Path:
    """Run the demonstration into `out` and return the path of its report.

    Raises:
        InputError: scikit-image is missing, or `out` is already there.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"demo: {out} is already there and not empty; delete it or choose another with --out.")
    _say(1, "taking real photos out of the scikit-image package")
    train_photos, test_photos = _photos(out / "photos")

    common = [f"data.hr={train_photos}", f"evaluate.sets={{held-out: {{hr: {test_photos}}}}}"]
    plain = _recipe("small_edsr_x2", "plain_l1", [*common, "method.terms.pixel.pace=null"])
    paced = _recipe("small_edsr_x2", "self_paced", common)
    _say(2, "training a small EDSR x2 with plain L1")
    plain_run = _train(plain, out, device)
    _say(3, "training the same network from the same start, self-paced")
    paced_run = _train(paced, out, device)

    better = max((plain_run, paced_run), key=lambda run: _last_scores(run)["psnr_y"])
    _say(4, f"continuing the better one, {better.name}, with the self-similarity loss added")
    start = f"start_from={better / 'weights' / 'best.safetensors'}"
    similar_run = _train(_recipe("small_edsr_x2_similarity", "self_similarity", [*common, start]), out, device)

    _say(5, "judging all of them on photos that were not trained on")
    runs = [plain_run, paced_run, similar_run]
    table = _judge(runs, test_photos, device)
    (out / "scores.json").write_text(json.dumps({entry.name: entry.scores for entry in table}, indent=2) + "\n")
    _say(6, "upscaling a photo and writing the report")
    _upscale(similar_run, test_photos, out, device)
    return _finish(out, runs, better, table)


def _say(part: int, what: str) -> None:
    console.rule(f"[bold]{part} of 6[/bold]  {what}", align="left")


def _photos(place: Path) -> tuple[Path, Path]:
    try:
        import skimage
    except ImportError as error:
        raise InputError(
            'demo: the photos come with scikit-image; install it with pip install "selfsr[demo]".'
        ) from error
    source = Path(skimage.__file__).parent / "data"
    files = {"immunohistochemistry": "ihc.png", "rocket": "rocket.jpg", "retina": "retina.jpg"}
    files["hubble_deep_field"] = "hubble_deep_field.jpg"
    folders = []
    for folder, names in (("train", _TRAIN), ("held-out", _TEST)):
        folders.append(place / folder)
        for name in names:
            photo = read_picture(source / files.get(name, f"{name}.png"))
            write_picture(place / folder / f"{name}.png", Picture(photo.pixels))
    return folders[0], folders[1]


def _recipe(shipped: str, name: str, settings: list[str]) -> Recipe:
    return load_recipe(shipped_recipes()[shipped], [f"name={name}", *settings])


def _train(recipe: Recipe, out: Path, device: str) -> Path:
    folder = out / "runs" / recipe.name
    if not fit(recipe, folder, device=device):
        raise KeyboardInterrupt
    return folder


def _last_scores(run: Path) -> dict[str, float]:
    last = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
    return next(iter(last["sets"].values()))["mean"]


def _judge(runs: list[Path], photos: Path, device: str) -> list[_Entry]:
    where = choose_device(device)
    paths = list_pictures(photos)
    entries = [_Entry("bicubic", evaluate_set(bicubic_upscaler(2), "held-out", paths, scale=2, device=where).mean)]
    for run in runs:
        model = load_model(_weights(run))
        model.net.to(where)
        scores = evaluate_set(model.upscale, "held-out", paths, scale=model.scale, device=where)
        entries.append(_Entry(run.name, scores.mean))
    return entries


def _weights(run: Path) -> Path:
    return run / "weights" / "last.safetensors"


def _upscale(run: Path, photos: Path, out: Path, device: str) -> None:
    photo = list_pictures(photos)[0]
    upscaler = Upscaler(load_model(_weights(run)), device=choose_device(device))
    write_picture(out / "upscaled" / f"{photo.stem}_x2.png", upscaler.picture(read_picture(photo), scratch=out))


def _finish(out: Path, runs: list[Path], better: Path, entries: list[_Entry]) -> Path:
    report = write_report(runs, out / "report.html", against=better)
    bicubic = entries[0].scores
    table = Table(title="Held-out photos, x2 (luma, 2 px border left out)", box=None)
    for heading in ("", "PSNR-Y", "gain over bicubic", "SSIM-Y"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for entry in entries:
        gain = entry.scores["psnr_y"] - bicubic["psnr_y"]
        table.add_row(
            entry.name,
            f"{entry.scores['psnr_y']:.2f} dB",
            "" if entry is entries[0] else f"{gain:+.2f} dB",
            f"{entry.scores['ssim_y']:.4f}",
        )
    Console().print(table)
    print_line(f"Pictures: {out / 'upscaled'} and {out / 'runs'}/*/samples")
    print_line(f"Report:   {report}")
    return report
