"""Runs at several scales: the scale of each step, training, evaluation, resuming and opening."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from factories import recipe_error
from run_folders import read_checkpoint, read_lines, train
from selfsr.data.loader import Loader
from selfsr.data.spec import FolderSpec
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import evaluate_set
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import list_images
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.weights.load import load_model
from selfsr.recipe import dump_recipe, parse_recipe, read_yaml
from selfsr.runfolder.checkpoints import list_checkpoints

CPU = torch.device("cpu")


@pytest.fixture
def several(tiny: dict) -> dict[str, Any]:
    """Return the tiny recipe for MDSR at x2 and x3, crops of 12 pixels of input."""
    tiny.update(scale=[2, 3], crop_px=[24, 36], network={"kind": "mdsr", "features": 4, "blocks": 1, "factors": [2, 3]})
    del tiny["method"]["terms"]["similarity"]
    return tiny


# ---- the scale of a step


def test_a_step_has_the_batch_of_a_run_at_its_scale_only(photos: Path) -> None:
    spec = FolderSpec(kind="folder", hr=photos / "train")
    crops = {2: 24, 3: 36, 4: 48}
    together = Loader(spec.build_each(crops), batch=3, seed=4, workers=0)
    alone = {
        scale: Loader(spec.build(scale=scale, crop_px=crop_px), batch=3, seed=4, workers=0)
        for scale, crop_px in crops.items()
    }
    scales = []
    for _ in range(30):
        (batch,) = together.prepare(next(together), CPU)
        expected = {scale: loader.prepare(next(loader), CPU)[0] for scale, loader in alone.items()}
        assert torch.equal(batch.hr, expected[batch.scale].hr)
        assert torch.equal(batch.lr, expected[batch.scale].lr)
        assert batch.lr.shape == (3, 3, 12, 12)
        scales.append(batch.scale)
    assert all(scales.count(scale) >= 5 for scale in crops), scales
    again = Loader(spec.build_each(crops), batch=6, seed=4, rank=1, world=2, start_step=10, workers=0)
    assert [crops_of(again) for _ in range(5)] == scales[10:15], "another process or a later start has other scales"
    other = Loader(spec.build_each(crops), batch=3, seed=5, workers=0)
    assert [crops_of(other) for _ in range(30)] != scales


def crops_of(loader: Loader) -> int:
    return loader.prepare(next(loader), CPU)[0].scale


def test_images_are_decoded_once_for_all_scales(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr("selfsr.data.store.read_image", lambda path: (read.append(path), read_image(path))[1])
    spec = FolderSpec(kind="folder", hr=photos / "train", cache="memory")
    loader = Loader(spec.build_each({2: 24, 3: 36}), batch=5, seed=1, workers=0)
    for _ in range(8):
        next(loader)
    assert sorted(read) == list_images(photos / "train")


# ---- the run


def test_every_scale_is_trained_evaluated_sampled_and_opened(several: dict, tmp_path: Path, photos: Path) -> None:
    folder = train(several, tmp_path / "run")
    trained = load_file(folder / "weights/last.safetensors")
    torch.manual_seed(several.get("seed", 1))
    fresh = MdsrSpec(features=4, blocks=1, factors=(2, 3)).build(2).state_dict()
    parts = {name: not torch.equal(trained[name], fresh[name]) for name in fresh if "_mean" not in name}
    assert all(parts.values()), f"not trained: {[name for name, moved in parts.items() if not moved]}"

    evaluations = read_lines(folder / "eval.jsonl")
    assert [list(line["sets"]) for line in evaluations] == [["test_x2", "test_x3"]] * 3
    assert list(evaluations[0]["bicubic"]) == ["test_x2", "test_x3"]
    assert evaluations[0]["bicubic"]["test_x2"]["mean"] != evaluations[0]["bicubic"]["test_x3"]["mean"]
    for line in evaluations:
        assert line["score"] == pytest.approx(
            (line["sets"]["test_x2"]["mean"]["psnr_y"] + line["sets"]["test_x3"]["mean"]["psnr_y"]) / 2
        )
    samples = {path.relative_to(folder / "samples").as_posix() for path in (folder / "samples").glob("*/*")}
    assert samples == {"test_x2/t0", "test_x3/t0"}
    lr = read_image(folder / "samples/test_x3/t0/lr.png")
    hr = read_image(folder / "samples/test_x3/t0/hr.png")
    assert (hr.height, hr.width) == (3 * lr.height, 3 * lr.width)

    with pytest.raises(InputError, match=r"MDSR serves x2 and x3; choose one, as with --scale 2\.$"):
        load_model(folder / "weights/last.safetensors")
    for scale in (2, 3):
        model = load_model(folder / "weights/last.safetensors", scale)
        paths = list_images(photos / "test")
        scores = evaluate_set(model.upscale, "test", paths, scale=scale, device=CPU).mean
        assert scores == pytest.approx(
            evaluations[-1]["sets"][f"test_x{scale}"]["mean"], abs=1e-3
        )  # a pixel may round otherwise


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(several: dict, tmp_path: Path) -> None:
    straight = train(several, tmp_path / "straight")
    resumed = train(several, tmp_path / "resumed")
    shutil.rmtree(list_checkpoints(resumed)[-1])
    train(several, resumed, resume=True)
    one, other = (load_file(folder / "weights/last.safetensors") for folder in (straight, resumed))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_lines(straight / "eval.jsonl") == read_lines(resumed / "eval.jsonl")


def test_best_weights_follow_the_mean_score_over_scales(
    several: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {0: (1.0, 1.0), 3: (20.0, 30.0), 6: (24.0, 25.0)}  # the first scale alone would choose step 6

    def evaluate(self, net, clock):
        means = [{"mean": {"psnr_y": score}} for score in scores[clock.step]]
        return {"step": clock.step, "epoch": clock.epoch, "sets": dict(zip(("test_x2", "test_x3"), means, strict=True))}

    monkeypatch.setattr("selfsr.training.evaluation.Evaluator.evaluate", evaluate)
    folder = train(several, tmp_path / "run")
    best = load_file(folder / "weights/best.safetensors")
    assert best.keys() == load_file(folder / "weights/last.safetensors").keys()
    assert read_checkpoint(folder)["best"] == {"psnr_y": 25.0}


def test_a_network_over_bicubic_trains_at_several_scales(several: dict, tmp_path: Path) -> None:
    several["network"] = {"kind": "vdsr", "features": 4, "convs": 3}
    folder = train(several, tmp_path / "run")
    assert list(read_lines(folder / "eval.jsonl")[-1]["sets"]) == ["test_x2", "test_x3"]
    with pytest.raises(InputError, match=r"VDSR serves x2 and x3; choose one, as with --scale 2\.$"):
        load_model(folder / "weights/last.safetensors")
    assert load_model(folder / "weights/last.safetensors", 3).scale == 3


# ---- LR from files


def test_pairs_have_a_folder_of_lr_for_each_scale(several: dict, tmp_path: Path, photos: Path) -> None:
    lr = {}
    for scale in (2, 3):
        lr[scale] = str(tmp_path / f"X{scale}")
        for path in list_images(photos / "train"):
            pixels = read_image(path).pixels
            height, width = (side // scale for side in pixels.shape[:2])
            small = pixels[: height * scale : scale, : width * scale : scale]
            write_image(tmp_path / f"X{scale}" / f"{path.stem}x{scale}.png", DecodedImage(np.ascontiguousarray(small)))
    several["data"] = {"kind": "pairs", "hr": str(photos / "train"), "lr": lr}
    recipe = parse_recipe(several, "pairs")
    assert parse_recipe(read_yaml(dump_recipe(recipe), "again"), "again") == recipe
    loader = Loader(recipe.data.build_each(recipe.crops_px), batch=4, seed=1, workers=0)
    seen = set()
    for _ in range(8):
        (batch,) = loader.prepare(next(loader), CPU)
        s = batch.scale
        seen.add(s)
        corners = [(row, column) for row in (0, s - 1) for column in (0, s - 1)]  # whichever way the crop was turned
        for hr, small in zip(batch.hr, batch.lr, strict=True):
            assert any(torch.equal(hr[:, row::s, column::s], small) for row, column in corners)
    assert seen == {2, 3}


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scale": 2, "crop_px": 24}, "network.factors must be the scales of the run, [2], got [2, 3]: the layers of"),
        ({"scale": [2, 4], "crop_px": 24}, "scale must be one of 2, 3 for network mdsr, got 4"),
        ({"scale": [2, 2]}, "scale must not name a factor twice, got [2, 2]"),
        ({"scale": []}, "scale: expected at least 1 entry, got 0; add one."),
        ({"scale": [2, 5]}, "my.yaml: scale.1: expected 1, 2, 3, 4 or 8, got 5."),
        ({"scale": 5}, "my.yaml: scale: expected 1, 2, 3, 4 or 8, got 5."),
        ({"crop_px": [24]}, "crop_px must be one number or one for each scale [2, 3], got [24]"),
        ({"crop_px": [24, 35]}, "crop_px must be a multiple of the scale 3, got 35"),
        ({"crop_px": 32}, "crop_px must be a multiple of the scale 3, got 32"),
        ({"crop_px": -1}, "my.yaml: crop_px: expected a number greater than 0, got -1."),
        ({"network": {"kind": "edsr"}}, "scale must be one number for network edsr, got [2, 3]; use one of srcnn"),
        (
            {"data": {"kind": "pairs", "hr": "a", "lr": "b"}},
            "data.lr must name a folder for each scale, such as {2: b, 3: ...}, got only b",
        ),
        (
            {"data": {"kind": "pairs", "hr": "a", "lr": {2: "b"}}},
            "data.lr must be for the scales [2, 3], got [2]",
        ),
        ({"data": {"kind": "pairs", "hr": "a", "lr": 5}}, "my.yaml: data.lr: expected a path, got"),
        (
            {"evaluate": {"sets": {"t": {"hr": "a", "lr": "b"}}}},
            "evaluate.sets.t.lr must name a folder for each scale",
        ),
    ],
)  # fmt: skip
def test_unfitting_scales_are_refused(several: dict, changes: dict, sentence: str) -> None:
    assert sentence in recipe_error({**copy.deepcopy(several), **changes})


def test_one_crop_serves_all_scales_that_divide_it(several: dict) -> None:
    assert parse_recipe({**several, "crop_px": 36}, "x").crops_px == {2: 36, 3: 36}


# ---- adversarial


def adversarial(several: dict, network: dict, **changes: Any) -> dict:
    discriminator = {"network": {"features": 4, "norm": "none", **network}, "weight": 0.1, "form": "standard"}
    method = {"kind": "gan", "terms": several["method"]["terms"], "discriminators": {"d": discriminator}}
    adam = {"kind": "adam", "lr": 1e-3}
    return several | {"method": method, "optimizers": {"g": adam, "d": adam}, "evaluate": None} | changes


@pytest.mark.parametrize(
    ("network", "crop_px"), [({"kind": "patch", "layers": 1}, [24, 36]), ({"kind": "vgg"}, 36)], ids=["patch", "vgg"]
)
def test_a_gan_trains_every_scale(several: dict, tmp_path: Path, network: dict, crop_px: Any) -> None:
    document = adversarial(several, network, crop_px=crop_px, log={"every_steps": 1})
    folder = train(document, tmp_path / "run")
    trained = load_file(folder / "weights/last.safetensors")
    torch.manual_seed(several.get("seed", 1))
    fresh = MdsrSpec(features=4, blocks=1, factors=(2, 3)).build(2).state_dict()
    still = [name for name in fresh if "_mean" not in name and torch.equal(trained[name], fresh[name])]
    assert still == []
    steps = read_lines(folder / "metrics.jsonl")
    assert len(steps) == 6
    assert all(line["loss"]["g"]["adversarial_d"] > 0 and line["grad_norm"]["d"] > 0 for line in steps)


def test_a_discriminator_for_one_size_refuses_several_crops(several: dict) -> None:
    assert recipe_error(adversarial(several, {"kind": "vgg"})) == (
        "my.yaml: recipe: crop_px must be one number for method.discriminators.d (vgg), which is built for one size of "
        "crop, got [24, 36]; use one size for all scales, or another discriminator."
    )
