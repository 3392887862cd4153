"""`selfsr export`: every file is the same network, and the cards and entries have the facts."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import spandrel
import torch
from typer.testing import CliRunner

from factories import texture
from run_folders import train
from sampled_nets import make_net, save_autoencoder
from selfsr import cli
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.models import find_model
from selfsr.models.comparison import check_difference, make_check_image, measure_difference
from selfsr.models.names import check_model_name, is_model_name, make_architecture_id, repair_model_name
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.spandrel.compact import CompactSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec
from selfsr.nets.vdsr import VdsrSpec
from selfsr.nets.weights.load import load_model, read_metadata
from selfsr.nets.weights.save import save_weights

# The keys of OpenModelDB's entries that may not be left out, with the types of their values.
REQUIRED = {
    "name": str, "author": (str, list), "license": (str, type(None)), "tags": list, "description": str, "date": str,
    "architecture": str, "size": (list, type(None)), "scale": int, "inputChannels": int, "outputChannels": int,
    "resources": list, "images": list,
}  # fmt: skip
OPTIONAL = {
    "trainingIterations": int, "trainingEpochs": int, "trainingBatchSize": int, "trainingHRSize": int,
    "trainingOTF": bool, "dataset": str, "datasetSize": int, "pretrainedModelG": str, "pretrainedModelD": str,
}  # fmt: skip
IDENTIFIER = r"[a-z0-9]+(?:-[a-z0-9]+|[+])*"


def check_entry(entry: dict) -> None:
    """Check an entry against the rules that OpenModelDB's own validation has."""
    assert set(entry) <= set(REQUIRED) | set(OPTIONAL)
    for key, types in REQUIRED.items():
        assert isinstance(entry[key], types), key
    for key, types in OPTIONAL.items():
        assert key not in entry or type(entry[key]) is types, key
        assert key not in entry or types is not int or entry[key] >= 1, key
    assert entry["tags"]
    authors = [entry["author"]] if isinstance(entry["author"], str) else entry["author"]
    for text in (*entry["tags"], *authors, entry["architecture"]):
        assert re.fullmatch(IDENTIFIER, text), text
    assert entry["description"] == entry["description"].strip() != ""
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", entry["date"])
    assert 1 <= entry["scale"] <= 16
    assert 1 <= entry["inputChannels"] <= 4
    for resource in entry["resources"]:
        assert set(resource) == {"platform", "type", "size", "sha256", "urls"}
        assert resource["platform"] == ("onnx" if resource["type"] == "onnx" else "pytorch")
        assert re.fullmatch("[0-9a-f]{64}", resource["sha256"])
    for image in entry["images"]:
        assert set(image) == {"type", "LR", "SR"}


def export(*args: object) -> SimpleNamespace:
    arguments = ["export", *map(str, args), "--device", "cpu"]
    result = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli.app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(status=result.exit_code, out=result.stdout, err=result.stderr)


def save(path: Path, spec, *, scale: int = 2, channels: int = 3, **metadata: str) -> Path:
    torch.manual_seed(0)
    save_weights(path, spec.build(scale, channels), metadata)
    return path


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    return save(tmp_path / "compact.safetensors", CompactSpec(features=8, convs=1))


def test_every_precision_opens_here_and_in_spandrel_as_the_same_network(compact: Path, tmp_path: Path) -> None:
    precisions = [part for name in ("float32", "float16", "bfloat16") for part in ("--precision", name)]
    done = export(compact, "-o", tmp_path / "out", "--name", "2x-waves", *precisions, "--pth")
    reference = load_model(compact)
    image = make_check_image(3, 25, 31)
    for name, dtype, tolerance in (
        ("2x-waves.safetensors", torch.float32, 0),
        ("2x-waves.pth", torch.float32, 0),
        ("2x-waves_fp16.safetensors", torch.float16, 2e-3),
        ("2x-waves_bf16.safetensors", torch.bfloat16, 1e-2),
    ):
        path = tmp_path / "out" / name
        assert f"{name}: " in done.out
        model = load_model(path)
        for key, tensor in reference.net.state_dict().items():
            assert torch.equal(model.net.state_dict()[key], tensor.to(dtype).float())
        with torch.no_grad():
            there = spandrel.ModelLoader().load_from_file(path).float()(image)
        torch.testing.assert_close(there, reference.upscale(image), rtol=0, atol=max(tolerance, 1e-6))
        torch.testing.assert_close(model.upscale(image), reference.upscale(image), rtol=0, atol=tolerance)


def test_the_entry_and_the_readme_have_the_facts_of_the_run(tiny: dict, tmp_path: Path, photos: Path) -> None:
    start = save(tmp_path / "2x-Start.safetensors", EdsrSpec(features=8, blocks=2))
    run = train({**tiny, "start_from": str(start)}, tmp_path / "run")
    (tmp_path / "card.yaml").write_text(
        "author: [Jane Doe, bob]\nlicense: MIT\ntags: [photo]\ndescription: |\n  For *waves*.\n"
        "dataset_terms: Free of terms.\nurl: https://example.org/files/\n"
    )
    out = tmp_path / "out"
    options = ["--card", tmp_path / "card.yaml", "--license", "CC-BY-4.0", "--images", photos / "test"]
    done = export(run, "-o", out, "--name", "2x-waves", *options, "--data", f"waves={photos / 'test'}")
    assert f"Wrote 12 files to {out}; the card is" in done.out
    entry = json.loads((out / "2x-waves.json").read_text())
    check_entry(entry)
    step = int(read_metadata(run / "weights" / "best.safetensors")["step"])
    expected = {
        "name": "waves", "author": ["jane-doe", "bob"], "license": "CC-BY-4.0", "tags": ["photo"],
        "description": "For *waves*.", "architecture": "edsr", "size": None, "scale": 2, "inputChannels": 3,
        "outputChannels": 3, "trainingIterations": step, "trainingBatchSize": 4, "trainingHRSize": 32,
        "trainingOTF": False, "dataset": "train", "datasetSize": 5, "pretrainedModelG": "2x-Start",
    }  # fmt: skip
    assert {key: entry[key] for key in expected} == expected
    for resource in entry["resources"]:
        content = (out / resource["urls"][0].removeprefix("https://example.org/files/")).read_bytes()
        assert resource["sha256"] == hashlib.sha256(content).hexdigest()
        assert resource["size"] == len(content)
    assert entry["images"][0] == {
        "type": "paired",
        "LR": "https://example.org/files/images/t0_lr.png",
        "SR": "https://example.org/files/images/t0_sr.png",
    }
    readme = (out / "README.md").read_text()
    for text in ("For *waves*.", "| training images | train, 5 images |", "`2x-Start.safetensors`", "Free of terms."):
        assert text in readme
    assert re.search(r"\| waves \| \d\d\.\d\d \|", readme)
    for link in re.findall(r"\]\((images/[^)]+)\)", readme):
        assert (out / link).is_file()


def test_no_exported_file_has_a_folder_of_the_machine(tiny: dict, tmp_path: Path, photos: Path) -> None:
    run = train(tiny, tmp_path / "run")
    path = run / "weights" / "last.safetensors"
    recipe = (run / "recipe.yaml").read_text()  # as runs wrote it into weights before
    save_weights(path, load_model(path).net, {**read_metadata(path), "recipe": recipe, "other": str(tmp_path)})
    export(path, "-o", tmp_path / "out", "--name", "2x-waves", "--author", "jane")
    for file in (tmp_path / "out").iterdir():
        assert str(photos).encode() not in file.read_bytes(), file
        assert str(tmp_path).encode() not in file.read_bytes(), file
    assert "hr: train" in read_metadata(tmp_path / "out" / "2x-waves.safetensors")["recipe"]


def test_pairs_are_the_photo_reduced_and_upscaled_with_thumbnails_of_one_place(compact: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "large.png", DecodedImage(texture(1, 401, 501)))
    export(compact, "-o", tmp_path / "out", "--name", "2x-waves", "--images", tmp_path / "photos")
    images = {path.name: read_image(path).pixels for path in (tmp_path / "out" / "images").iterdir()}
    assert {name: pixels.shape for name, pixels in images.items()} == {
        "large_lr.png": (200, 250, 3), "large_sr.png": (400, 500, 3),
        "large_lr_thumb.png": (148, 183, 3), "large_sr_thumb.jpg": (296, 366, 3),
    }  # fmt: skip
    lr = torch.from_numpy(images["large_lr.png"].copy()).permute(2, 0, 1)[None] / 255
    levels = (255 * load_model(compact).upscale(lr)[0]).round().permute(1, 2, 0).numpy()
    assert np.abs(levels - images["large_sr.png"]).max() <= 1
    assert np.array_equal(images["large_lr_thumb.png"], images["large_lr.png"][26:174, 33:216])
    difference = images["large_sr_thumb.jpg"].astype(int) - images["large_sr.png"][52:348, 66:432]
    assert np.abs(difference).mean() < 3


def test_names_are_those_of_openmodeldb() -> None:
    check_model_name("4x-Waves-v2", 4)
    for name, repaired in {
        "photo_x4": "4x-photo", "my photos x4": "4x-my-photos", "2x-waves": "4x-waves", "4xWaves": "4x-Waves",
        "4x-4xWaves": "4x-Waves", "4x-waves-x4": "4x-waves", "x4": "4x-model", "": "4x-model", "4x-a--b": "4x-a-b",
    }.items():  # fmt: skip
        assert repair_model_name(name, 4) == repaired
        assert is_model_name(repaired)
        with pytest.raises(InputError, match=rf"--name: expected a name of the form 4x-.* write --name {repaired}\."):
            check_model_name(name, 4)
    assert [make_architecture_id(name) for name in ("ESRGAN", "SRResNet", "D-DBPN")] == [
        "esrgan",
        "sr-res-net",
        "d-dbpn",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "4x-waves"], r"--name: expected a name of the form 2x-.* write --name 2x-waves\."),
        (["--precision", "flot16"], r"--precision: expected one of float32, .* got 'flot16'; did you mean float16\?"),
        (
            ["--tag", "Real Photo"],
            r"--tag: expected lower-case words with hyphens, got 'Real Photo'; write real-photo\.",
        ),
        (["--license", "my own!"], r"--license: expected an SPDX identifier"),
        (["--url", "files"], r"--url: expected an address that begins with https://, got 'files'"),
        (["--opset", "17"], r"export: expected no --opset without --onnx, where it does nothing, got one"),
        (["--metric", "lpips"], r"export: expected no --metric without --data"),
        (["--card", "none.yaml"], r"--card: expected a YAML file, got none.yaml, which is missing"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    compact: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    name = [] if "--name" in options else ["--name", "2x-waves"]
    with pytest.raises(InputError, match=f"^{message}"):
        export(compact, "-o", tmp_path / "out", *name, *options)
    assert not (tmp_path / "out").exists()


def test_a_card_is_checked_by_its_keys_and_forms(compact: Path, tmp_path: Path) -> None:
    for text, message in {
        "writer: jane\n": r"card.yaml: writer: unknown key; known keys are author",
        "date: 1.2.2026\n": r"date: expected yyyy-mm-dd, got '1.2.2026'",
        "pretrained_model_g: photo\n": r"pretrained_model_g: expected a name of OpenModelDB .*, got 'photo'",
    }.items():
        (tmp_path / "card.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            export(compact, "-o", tmp_path / "out", "--name", "2x-waves", "--card", tmp_path / "card.yaml")


def test_files_that_exist_stay_without_overwrite(compact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(compact, "-o", out, "--name", "2x-waves")
    (out / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"export: expected new files in .*out, got 2x-waves.safetensors and 2 more"):
        export(compact, "-o", out, "--name", "2x-waves")
    assert (out / "README.md").read_text() == "mine"
    assert export(compact, "-o", out, "--name", "2x-waves", "--overwrite").status == 0
    assert (out / "README.md").read_text().startswith("# 2x-waves\n")


def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(compact: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        export(compact, "-o", tmp_path / "file" / "out", "--name", "2x-waves")


def test_without_author_there_is_no_entry_and_a_note(compact: Path, tmp_path: Path) -> None:
    done = export(compact, "-o", tmp_path / "out", "--name", "2x-waves")
    assert not (tmp_path / "out" / "2x-waves.json").exists()
    assert "No OpenModelDB entry was written, because it needs an author; add --author." in done.err


def test_half_precision_beyond_its_range_is_refused(compact: Path, tmp_path: Path) -> None:
    net = load_model(compact).net
    next(net.parameters()).data.fill_(1e6)
    save_weights(compact, net, {})
    with pytest.raises(InputError, match=r"weights: expected numbers within the range of float16, got larger ones in"):
        export(compact, "-o", tmp_path / "out", "--name", "2x-waves")
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_network_is_refused() -> None:
    def reference(image: torch.Tensor) -> torch.Tensor:
        return image

    def shifted(image: torch.Tensor) -> torch.Tensor:
        return image + 2 / 255

    difference = measure_difference(shifted, reference, 3, [(9, 12)])
    assert difference.levels == pytest.approx(2, abs=1e-3)
    assert difference.psnr_db == pytest.approx(20 * np.log10(255 / 2), abs=0.05)
    with pytest.raises(InputError, match=r"expected a.pth within 0.5 gray levels of the network, got 2"):
        check_difference("a.pth", difference, half=False)
    check_difference("a.pth", measure_difference(lambda x: x + 1 / 255, reference, 3, [(9, 12)]), half=True)
    with pytest.raises(InputError, match=r"expected a.pth within 45 dB PSNR of the float32 network, got 22"):
        check_difference("a.pth", measure_difference(lambda x: x + 20 / 255, reference, 3, [(9, 12)]), half=True)
    with pytest.raises(InputError, match="got NaN or infinity"):
        measure_difference(lambda x: x / 0, reference, 3, [(9, 12)])


def run_onnx(path: Path, image: torch.Tensor) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dtype = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    return session.run(None, {"input": image.numpy().astype(dtype)})[0].astype(np.float32)


@pytest.mark.parametrize(
    ("spec", "channels"), [(CompactSpec(features=8, convs=1), 3), (EdsrSpec(features=8, blocks=1), 1)]
)
def test_onnx_of_any_size_and_batch_is_the_network(spec, channels: int, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path = save(tmp_path / "net.safetensors", spec, channels=channels)
    done = export(path, "-o", tmp_path / "out", "--name", "2x-waves", "--onnx", "--onnx-half", "--opset", 16)
    assert re.search(r"2x-waves_fp32.onnx: \S+ gray levels at most, .* dB PSNR \(opset 16, any size\)", done.out)
    image = torch.cat([make_check_image(channels, 19, 30), make_check_image(channels, 19, 30).flip(-1)])
    expected = load_model(path).upscale(image).numpy()
    for ending, tolerance in (("fp32", 1e-4), ("fp16", 1e-2)):
        output = run_onnx(tmp_path / "out" / f"2x-waves_{ending}.onnx", image)
        assert np.abs(output.clip(0, 1) - expected).max() < tolerance


@pytest.mark.slow
def test_onnx_of_a_network_that_computes_with_the_size_is_fixed_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    spec = SwinIrSpec(features=12, depths=(2,), heads=(2,), window_px=4)
    path = save(tmp_path / "net.safetensors", spec)
    done = export(path, "-o", tmp_path / "out", "--name", "2x-waves", "--onnx", "--precision", "float32")
    assert re.search(r"\(opset 17, only 64 x 64 px, because its \w+ in ", done.out), done.out
    done = export(
        path, "-o", tmp_path / "small", "--name", "2x-waves", "--onnx", "--fixed-size", 22, "--precision", "float32"
    )
    assert "only 22 x 22 px" in done.out
    image = make_check_image(3, 22, 22)
    output = run_onnx(tmp_path / "small" / "2x-waves_fp32.onnx", image)
    assert np.abs(output.clip(0, 1) - load_model(path).upscale(image).numpy()).max() < 1e-4


def test_onnx_is_refused_with_the_part_that_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    vdsr = save(tmp_path / "vdsr.safetensors", VdsrSpec(convs=3, features=4), channels=1)
    with pytest.raises(InputError, match=r"got VDSR: its \w+ in \S+\.py computes with the size of the input outside"):
        export(vdsr, "-o", tmp_path / "out", "--name", "2x-waves", "--onnx")
    save_weights(tmp_path / "sampled.safetensors", make_net(), {})
    sampled = (tmp_path / "sampled.safetensors", "-o", tmp_path / "out", "--name", "2x-waves")
    with pytest.raises(InputError, match=r"got ResShift, which draws noise and runs a network several times; leave"):
        export(*sampled, "--onnx")
    assert export(*sampled).status == 0
    with pytest.raises(InputError, match=r"--opset: expected 13 to 20, got 3; 17 is read by most programs"):
        export(vdsr, "-o", tmp_path / "other", "--name", "2x-waves", "--onnx", "--opset", 3)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"--onnx needs onnx and onnxruntime, .*pip install \"selfsr\[export\]\""):
        export(vdsr, "-o", tmp_path / "other", "--name", "2x-waves", "--onnx")


def test_an_autoencoder_is_found_by_the_run_and_named_without_its_folder(tiny: dict, tmp_path: Path) -> None:
    vae = save_autoencoder(tmp_path / "secret" / "vae", "AutoencoderKL")
    network = {
        "kind": "residual_shifting",
        "unet": {"channels": [8, 16], "groups": 4},
        "space": {"autoencoder": str(vae)},
    }
    method = {"kind": "denoising", "terms": {}}
    run = train({**tiny, "network": network, "method": method, "steps": 2}, tmp_path / "run")
    weights = run / "weights" / "last.safetensors"
    assert "secret" not in json.dumps(read_metadata(weights))
    expected = load_model(weights).upscale(make_check_image(3, 16, 16))
    done = export(weights, "-o", tmp_path / "out", "--name", "2x-waves", "--precision", "float32")
    assert (
        "2x-waves.safetensors: 0 gray levels at most, identical (needs the folder vae of the autoencoder next"
        in done.out
    )
    with pytest.raises(InputError, match=r"a folder with an autoencoder, got vae.* searched next to the weights file"):
        load_model(tmp_path / "out" / "2x-waves.safetensors")
    shutil.copytree(vae, tmp_path / "out" / "vae")
    assert torch.equal(
        load_model(tmp_path / "out" / "2x-waves.safetensors").upscale(make_check_image(3, 16, 16)), expected
    )


def test_a_shipped_model_keeps_its_facts(tmp_path: Path) -> None:
    options = ["--name", "4x-photo", "--author", "selfsr", "--precision", "float16"]
    export("photo_x4", "-o", tmp_path, *options)
    entry = json.loads((tmp_path / "4x-photo.json").read_text())
    check_entry(entry)
    assert (entry["architecture"], entry["size"], entry["dataset"]) == ("rcan", ["32nf", "2nrg", "8nrb"], "T91, BSD200")
    again = load_model(tmp_path / "4x-photo_fp16.safetensors").net.state_dict()
    for name, tensor in load_model(find_model("photo_x4")).net.state_dict().items():
        assert torch.equal(tensor, again[name])


def test_published_files_are_exported(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = Path(request.config.getoption("--weights-root")) / "generators"
    if not (folder / "spanx4_ch48.pth").is_file():
        pytest.skip("needs generators/spanx4_ch48.pth; pass the folder that contains it with --weights-root DIR")
    pytest.importorskip("onnx")
    done = export(
        folder / "spanx4_ch48.pth", "-o", tmp_path, "--name", "4x-span", "--author", "jane", "--onnx",
        "--precision", "float16",
    )  # fmt: skip
    assert "4x-span_fp32.onnx: 0.00" in done.out
    entry = json.loads((tmp_path / "4x-span.json").read_text())
    check_entry(entry)
    assert (entry["architecture"], entry["size"]) == ("span", ["48nf"])
