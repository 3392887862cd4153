"""`selfsr compare`, as typed by a user."""

import gc
import json
import shutil
import weakref

import pytest
import torch

from factories import texture
from selfsr.cli import app
from selfsr.comparison import run
from selfsr.errors import InputError
from selfsr.evaluation.metrics import METRICS, Metric
from selfsr.evaluation.niqe import niqe, read_niqe_parameters
from selfsr.images.files import DecodedImage, image_to_tensor, read_image, write_image
from selfsr.images.resize import bicubic_lr, mod_crop
from selfsr.nets.weights.load import load_model


def read_means(path, name="mine"):
    record = json.loads(path.read_text())
    return {entry["name"]: entry["sets"][name]["mean"] for entry in record["results"]}


def test_scores_are_those_of_evaluate_and_finished_images_score_as_their_model(run_command, models, hr, tmp_path):
    wide, slim, out = models / "wide.safetensors", models / "slim.safetensors", tmp_path / "compare.json"
    finished = tmp_path / "finished"
    run_command("evaluate", wide, "--data", hr, "--save-images", finished, "--out", tmp_path / "one.json")
    status, stdout, _ = run_command(
        "compare", wide, slim, finished, "--names", "wide,slim,done", "--data", hr, "--json", out, "--device", "cpu"
    )
    assert status == 0
    means = read_means(out)
    one = json.loads((tmp_path / "one.json").read_text())["results"][0]["sets"]["mine"]["mean"]
    assert list(means) == ["bicubic", "wide", "slim", "done"]
    assert means["wide"] == one
    assert means["done"] == pytest.approx(one, abs=1e-12)
    record = json.loads(out.read_text())
    wide_entry = record["results"][1]
    assert wide_entry["scale"] == 2
    assert wide_entry["parameters"] > record["results"][2]["parameters"] > 0
    # Each upscaled once, cropped to a multiple of the scale: 60 x 72, 56 x 64 and 72 x 100 pixels.
    assert wide_entry["megapixels"] == pytest.approx((60 * 72 + 56 * 64 + 72 * 100) / 1e6)
    assert "parameters" not in record["results"][3]
    best = max(means, key=lambda name: means[name]["psnr_y"])
    assert best in record["best"]["mine"]["PSNR-Y"]
    assert record["best"]["mine"]["Parameters"] == ["slim"]
    marked = {line.split()[1] for line in stdout.splitlines() if f"{means[best]['psnr_y']:.2f}*" in line}
    assert best in marked
    assert all(len(line) <= 80 for line in stdout.splitlines())
    assert "* best of its column." in stdout


def test_evaluate_takes_several_models(run_command, models, hr, tmp_path):
    wide, slim, out = models / "wide.safetensors", models / "slim.safetensors", tmp_path / "both.json"
    status, stdout, _ = run_command("evaluate", wide, slim, "--bicubic", "--data", hr, "--out", out)
    assert status == 0
    record = json.loads(out.read_text())
    assert [entry["upscaler"] for entry in record["results"]] == ["bicubic", str(wide), str(slim)]
    run_command("evaluate", slim, "--data", hr, "--out", tmp_path / "slim.json")
    assert record["results"][2] == json.loads((tmp_path / "slim.json").read_text())["results"][0]
    assert [line.split()[1] for line in stdout.splitlines() if line.startswith("mine")] == [
        "bicubic",
        "wide.safetensors",
        "slim.safetensors",
    ]


def test_one_model_is_in_memory_and_metrics_load_once(run_command, models, hr, monkeypatch):
    opened, alive, loads = [], [], []
    open_model = run.open_model

    def watch(candidate, scale):
        gc.collect()
        alive.append(sum(reference() is not None for reference in opened))
        model = open_model(candidate, scale)
        opened.append(weakref.ref(model.net))
        return model

    def load(device):
        loads.append(device)
        return lambda sr, hr: float((sr - hr).abs().mean())

    monkeypatch.setattr(run, "open_model", watch)
    monkeypatch.setitem(METRICS, "lpips", Metric("LPIPS", "", 4, "lower", load=load))
    slim = shutil.copy(models / "slim.safetensors", models / "again.safetensors")
    status, _, _ = run_command(
        "compare", models / "wide.safetensors", models / "slim.safetensors", slim, "--data", hr, "--metric", "lpips"
    )
    assert status == 0
    assert alive == [0, 0, 0]
    assert len(loads) == 1


def test_run_folder_gives_its_best_weights_and_lr_folder_its_inputs(run_command, models, hr, tmp_path):
    folder = tmp_path / "runs" / "mine"
    (folder / "weights").mkdir(parents=True)
    shutil.copy(models / "slim.safetensors", folder / "weights" / "best.safetensors")
    lr = tmp_path / "lr"
    for path in sorted(hr.iterdir()):
        image = mod_crop(image_to_tensor(read_image(path)), 2)
        pixels = (255 * bicubic_lr(image, 2)[0]).round().byte().permute(1, 2, 0).contiguous().numpy()
        write_image(lr / f"{path.stem}x2.png", DecodedImage(pixels))
    out = tmp_path / "compare.json"
    run_command("compare", models / "slim.safetensors", folder, "--data", hr, "--lr", lr, "--json", out)
    means = read_means(out)
    assert means["mine"] == means["slim"]
    run_command("compare", models / "slim.safetensors", folder, "--data", hr, "--json", tmp_path / "made.json")
    assert read_means(tmp_path / "made.json") == means


def test_degraded_inputs_lower_the_scores_and_follow_the_seed(run_command, models, hr, tmp_path):
    pytest.importorskip("cv2")
    arguments = ("compare", models / "wide.safetensors", models / "slim.safetensors", "--data", hr)
    means = []
    for index, seed in enumerate((1, 1, 2)):
        out = tmp_path / f"{index}.json"
        run_command(*arguments, "--degrade", "real_esrgan", "--seed", seed, "--json", out)
        means.append(read_means(out)["bicubic"]["psnr_y"])
    assert means[0] == means[1] != means[2]
    run_command(*arguments, "--json", tmp_path / "plain.json")
    assert read_means(tmp_path / "plain.json")["bicubic"]["psnr_y"] > max(means)


def test_without_hr_niqe_scores_models_and_finished_images(run_command, models, torch_home, tmp_path):
    photos, finished = tmp_path / "photos", tmp_path / "finished"
    write_image(photos / "a.png", DecodedImage(texture(1, 100, 148)))
    output = texture(2, 200, 296)
    write_image(finished / "a_x2.png", DecodedImage(output))
    out = tmp_path / "compare.json"
    status, _, _ = run_command(
        "compare", models / "slim.safetensors", finished, "--lr", photos, "--json", out, "-o", tmp_path / "c.html"
    )
    assert status == 0
    means = read_means(out, "photos")
    pixels = torch.from_numpy(output.transpose(2, 0, 1).copy())[None] / 255
    inner = pixels[..., 2:-2, 2:-2]
    assert means["finished"]["niqe"] == pytest.approx(niqe(inner, read_niqe_parameters()), rel=1e-6)
    assert set(means["slim"]) == {"niqe"}
    assert "psnr" not in json.loads(out.read_text())["protocol"]
    assert (tmp_path / "c.html").stat().st_size > 1000


def test_run_folders_with_any_weights_and_their_checkpoints_are_models(run_command, models, hr, tmp_path):
    run_folder = tmp_path / "run"
    checkpoint = run_folder / "checkpoints" / "step_00000005"
    for path in (run_folder / "weights" / "last.pth", checkpoint / "state.pt"):
        path.parent.mkdir(parents=True)
    net = load_model(models / "wide.safetensors").net
    torch.save(net.state_dict(), run_folder / "weights" / "last.pth")
    torch.save({"generator": net.state_dict()}, checkpoint / "state.pt")
    out = tmp_path / "compare.json"
    run_command("compare", models / "wide.safetensors", run_folder, checkpoint, "--data", hr, "--json", out)
    results = json.loads(out.read_text())["results"]
    assert [one["name"] for one in results] == ["bicubic", "wide", "run", "step_00000005"]
    assert results[1]["sets"] == results[2]["sets"] == results[3]["sets"]


def test_unreadable_image_is_left_out_with_its_name(run_command, models, hr, tmp_path):
    data = shutil.copytree(hr, tmp_path / "mine")
    broken = data / "i1.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    out = tmp_path / "compare.json"
    status, _, stderr = run_command(
        "compare", models / "wide.safetensors", models / "slim.safetensors", "--data", data, "--json", out
    )
    assert status == 1
    assert stderr.count(str(broken)) == 1
    assert list(json.loads(out.read_text())["results"][1]["sets"]["mine"]["images"]) == ["i0", "i2"]


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        ("compare", "-o", "photo.png"),
        ("compare", "-o", "wide.safetensors"),
        ("compare", "--json", "page.html"),
        ("evaluate", "--out", "recipe.yaml"),
        ("bench", "--json", "net.pth"),
        ("bench", "--plot", "photo.png"),
        ("report", "--out", "eval.jsonl"),
    ],
)
def test_a_result_never_replaces_a_file_of_another_type(models, hr, tmp_path, command, option, name):
    target = tmp_path / name
    target.write_bytes(b"mine")
    inputs = {
        "compare": (models / "wide.safetensors", models / "slim.safetensors", "--data", hr),
        "evaluate": (models / "wide.safetensors", "--data", hr),
        "bench": (),
        "report": (tmp_path,),
    }
    with pytest.raises(
        InputError, match=rf"^{command}: {option}: expected a new file, or a \.\w+ file to replace, got "
    ):
        app([command, *map(str, (*inputs[command], option, target))], standalone_mode=False)
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["WIDE", "--data", "HR"], "expected at least two models or folders of images, got 1"),
        (["WIDE", "SLIM"], "expected images for wide, got none; name HR images with --data"),
        (["WIDE", "SLIM", "--lr", "HR", "--metric", "ssim_y"], "computed with --data"),
        (["WIDE", "SLIM", "--lr", "HR", "--metric", "fid"], "expected HR images for --metric fid, got none"),
        (["WIDE", "FOUR", "--data", "HR"], "one scale for all models, x2 as wide has, got x4 (four)"),
        (["WIDE", "SLIM", "--data", "HR", "--scale", "4"], "the scale 4 of --scale, got x2 (wide)"),
        (["WIDE", "SLIM", "--data", "HR", "--names", "a"], "expected 2 names in --names, one for each model, got 1"),
        (["WIDE", "SLIM", "--data", "HR", "--names", "a,a"], "expected different names, got a twice"),
        (["WIDE", "WIDE", "--data", "HR"], "expected different names, got"),
        (["WIDE", "LACKING", "--data", "HR"], "expected one finished image for each image of"),
        (["WIDE", "WRONG", "--data", "HR"], "expected 60 x 72 pixels"),
        (["HR", "HR2", "--data", "HR"], "expected --scale N for folders of finished images, got none"),
        (["WIDE", "RUN", "--data", "HR"], "a run folder, a checkpoint or a model folder, got the folder"),
        (["WIDE", "SLIM", "--data", "BROKEN"], "broken.png"),
        (["WIDE", "SLIM", "--lr", "HR", "--degrade", "bsrgan"], "expected no --degrade without --data"),
        (["WIDE", "SLIM", "--data", "HR", "--degrade", "none"], "none"),
        (["WIDE", "SLIM", "--data", "HR", "--max-images", "3"], "expected no --max-images without a page (-o)"),
        (["WIDE", "SLIM", "--data", "HR", "-o", "HR"], "which is a folder; name a new file"),
    ],
)
def test_mistakes_are_one_sentence_before_any_model_runs(
    run_command, models, hr, tmp_path, monkeypatch, arguments, sentence
):
    places = {name.upper(): models / f"{name}.safetensors" for name in ("wide", "slim", "four")}
    places |= {"HR": hr, **{name: tmp_path / name.lower() for name in ("HR2", "LACKING", "WRONG", "RUN", "BROKEN")}}
    shutil.copytree(hr, places["HR2"])
    write_image(places["LACKING"] / "i0.png", DecodedImage(texture(0, 60, 72)))
    for path in hr.iterdir():
        write_image(places["WRONG"] / path.name, DecodedImage(texture(0, 40, 40)))
    (places["RUN"] / "weights").mkdir(parents=True)
    places["BROKEN"].mkdir()
    (places["BROKEN"] / "broken.png").write_bytes(b"no image")
    monkeypatch.setattr(run, "open_model", lambda *_: pytest.fail("a model runs"))
    with pytest.raises(InputError) as error:
        run_command("compare", *(places.get(argument, argument) for argument in arguments))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_evaluate_refuses_models_that_do_not_fit_together(run_command, models, hr, tmp_path):
    wide, four = models / "wide.safetensors", models / "four.safetensors"
    for arguments, sentence in (
        ((wide, four), "one scale for all models"),
        ((wide, wide), "twice; name each model once"),
        ((wide, models / "slim.safetensors", "--save-images", tmp_path / "x"), "expected one model with --save-images"),
        ((wide, models / "slim.safetensors", "--seeds", "1,2"), "expected no --seeds with models that have one output"),
    ):
        with pytest.raises(InputError) as error:
            run_command("evaluate", *arguments, "--data", hr)
        assert sentence in str(error.value)
