"""Every architecture of spandrel is upscaled, evaluated, exported and fine-tuned, and docs/checkpoints.md says so."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import spandrel
import torch

from architectures import NAMES, SCALES, build
from factories import make_tiny_recipe, texture
from run_folders import train
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import evaluate_set
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.resize import bicubic_lr
from selfsr.models.card_options import CardOptions
from selfsr.models.comparison import make_check_image
from selfsr.models.export import ExportOptions, export_model
from selfsr.nets.weights.detect import is_derived
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.model import Model
from selfsr.nets.weights.save import save_weights
from selfsr.upscaling.upscaler import Upscaler

CPU = torch.device("cpu")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md"
# Heights and widths in pixels that the export itself does not check.
SIZES = ((31, 64), (130, 70))
HEADER = ["architecture", "scale", "upscaled", "evaluated", "exported", "ONNX", "fine-tuned"]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated", "ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore::selfsr.errors.RangeWarning"),  # untrained networks leave [0, 1]
]


def read_rows() -> dict[str, list[str]]:
    """Return the cells of the page's table by architecture."""
    section = PAGE.read_text(encoding="utf-8").split("## Architectures of spandrel")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", section, re.M)]
    assert rows[0] == HEADER
    return {row[0]: row for row in rows[2:]}


def test_the_page_has_a_row_for_each_architecture() -> None:
    assert {name: row[1] for name, row in read_rows().items()} == {name: f"x{SCALES[name]}" for name in SCALES}


@pytest.mark.parametrize("name", NAMES)
def test_the_row_of_an_architecture_is_true(name: str, tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, build(name), {})
    model = load_model(path)
    check_upscaling(model, tmp_path)
    check_evaluation(model, tmp_path)
    precisions = check_export(model, path, tmp_path / "out")
    onnx = check_onnx(model, path, tmp_path / "onnx")
    check_fine_tuning(name, path, photos, tmp_path / "run")
    row = [name, f"x{SCALES[name]}", "yes", "yes", precisions, onnx, "yes"]
    assert read_rows()[name] == row, f"the page needs: | {' | '.join(row)} |"


def check_upscaling(model: Model, folder: Path) -> None:
    """Upscale an image with odd sides as the command does."""
    image = texture(3, 37, 43)
    upscaler = Upscaler(model, device=CPU, precision="float32", tile="off")
    output = upscaler.upscale_image(DecodedImage(image), scratch=folder)
    assert output.pixels.shape == (37 * model.scale, 43 * model.scale, 3)
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = 255 * model.net(x)[0].clamp(0, 1).permute(1, 2, 0)
    assert (torch.from_numpy(output.pixels.astype(np.float32)) - expected).abs().max() <= 0.5 + 1e-2


def check_evaluation(model: Model, folder: Path) -> None:
    """Evaluate on one image; its PSNR is that of the definition."""
    write_image(folder / "hr.png", DecodedImage(texture(4, 48, 60)))
    hr = torch.from_numpy(read_image(folder / "hr.png").pixels.copy()).permute(2, 0, 1)[None] / 255
    scores = evaluate_set(model.upscale, "one", [folder / "hr.png"], scale=model.scale, device=CPU).images["hr"]
    lr = bicubic_lr(hr, model.scale)
    sides = slice(model.scale, -model.scale)
    error = (255 * model.upscale(lr).double()).round() - 255 * hr.double()
    expected = 20 * math.log10(255) - 10 * math.log10(error[..., sides, sides].square().mean().item())
    assert scores["psnr_rgb"] == pytest.approx(expected, abs=0.01)
    assert -1 < scores["ssim_y"] < 1


def check_export(model: Model, path: Path, folder: Path) -> str:
    """Export in two precisions and reopen the files, here and in spandrel; return the precisions."""
    name = f"{model.scale}x-tiny"
    export_model(str(path), folder, name, CardOptions(), ExportOptions(), device=CPU)
    image = make_check_image(model.channels, 41, 29)
    expected = model.upscale(image)
    exact = load_model(folder / f"{name}.safetensors")
    torch.testing.assert_close(exact.upscale(image), expected, rtol=0, atol=1e-5)
    half = load_model(folder / f"{name}_fp16.safetensors")
    for key, tensor in model.net.state_dict().items():
        if is_derived(key):
            continue  # computed from the others, which are rounded
        rounded = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(half.net.state_dict()[key], rounded), key
    assert (half.upscale(image) - expected).square().mean().sqrt() < 10 ** (-45 / 20)
    descriptor = spandrel.ModelLoader(device="cpu").load_from_file(folder / f"{name}.safetensors")
    assert descriptor.scale == model.scale
    return "float32, float16"


def check_onnx(model: Model, path: Path, folder: Path) -> str:
    """Export as ONNX and run the file by onnxruntime; return its sizes, or "no" if it is refused with the part."""
    onnxruntime = pytest.importorskip("onnxruntime")
    name, lines = f"{model.scale}x-tiny", []
    options = ExportOptions(precisions=(), onnx=("float32",))
    refusal = ""
    try:
        export_model(str(path), folder, name, CardOptions(), options, device=CPU, report=lines.append)
    except InputError as error:
        refusal = str(error)
    if refusal:
        part = r"(, which draws noise|: its \w[^;]* (in [^;]+|cannot be written, [^;]+))"
        assert re.fullmatch(
            rf"export: --onnx expected [^;]*, got {model.architecture}{part}; leave --onnx out\.", refusal
        )
        return "no"
    session = onnxruntime.InferenceSession(str(folder / f"{name}_fp32.onnx"), providers=["CPUExecutionProvider"])
    (line,) = lines
    fixed = re.search(r"only (\d+) x (\d+) px, because (its|PyTorch's) ", line)
    multiple = re.search(r"sides in multiples of (\d+) px", line)
    assert fixed or multiple or "any size" in line, line
    step = int(multiple[1]) if multiple else 1
    for size in [(int(fixed[1]), int(fixed[2]))] if fixed else SIZES:
        height, width = (-(-max(side, model.minimum_px) // step) * step for side in size)
        image = make_check_image(model.channels, height, width)
        image = image if "one image at a time" in line else torch.cat([image, image.flip(-1)])
        (output,) = session.run(None, {"input": image.numpy()})
        with torch.no_grad():
            assert np.abs(output - model.net(image).numpy()).max() < 1e-3, size
    return "one size" if fixed else f"multiples of {step} px" if multiple else "any size"


def check_fine_tuning(name: str, path: Path, photos: Path, folder: Path) -> None:
    """Train the file two steps further as a recipe does; the result opens as the same architecture."""
    recipe = make_tiny_recipe(photos)
    recipe |= {"network": {"kind": "from_file"}, "start_from": str(path), "steps": 2, "batch": 2, "evaluate": None}
    recipe |= {"scale": SCALES[name], "crop_px": 12 * SCALES[name], "checkpoints": {"every_steps": 2}}
    recipe |= {"method": {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}}}
    if SCALES[name] == 1:
        recipe["data"] = {"kind": "pairs", "hr": str(photos / "train"), "lr": str(photos / "train")}
    run = train(recipe, folder)
    before, after = load_model(path), load_model(run / "weights" / "last.safetensors")
    assert (after.architecture, after.scale) == (before.architecture, before.scale)
    moved = [k for k, t in before.net.state_dict().items() if not torch.equal(t, after.net.state_dict()[k])]
    assert moved
