"""`selfsr evaluate` of published checkpoints: their layouts with random weights, against an independent forward pass.

The published files hold EDSR-PyTorch's names and work on 0 to 255. The forward pass here is written on plain functions
from the network's definition; the score is that of the rounded output, by numpy.
"""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pixel_shuffle

from selfsr.cli import app
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.images.resize import bicubic_lr
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.lapsrn import LapSrnSpec
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.vdsr import VdsrSpec
from selfsr.nets.weights.load import load_into
from selfsr.recipe import load_recipe, shipped_recipes

MEAN = torch.tensor([0.4488, 0.4371, 0.4040]).mul(255).view(1, 3, 1, 1)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    for index in range(2):
        coarse = rng.integers(0, 256, (9, 8, 3)).astype(np.uint8)
        write_image(tmp_path / "Set" / f"p{index}.png", DecodedImage(np.kron(coarse, np.ones((6, 6, 1), np.uint8))))
    return tmp_path / "Set"


def published(spec: EdsrSpec | MdsrSpec, scale: int) -> "OrderedDict[str, Tensor]":
    """Return random weights under the published names, that leave bicubic's neighborhood but not the gray levels."""
    torch.manual_seed(11)
    state = OrderedDict(spec.build(scale).state_dict())
    for name, tensor in state.items():
        if "_mean" not in name:
            state[name] = tensor + 0.02 * torch.randn_like(tensor)
    return state


def edsr(w: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """EDSR x2 on images of 0 to 255."""

    def conv(name: str, z: Tensor) -> Tensor:
        return conv2d(z, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    z = head = conv("head.0", x - MEAN)
    for n in range(blocks):
        z = z + conv(f"body.{n}.body.2", conv(f"body.{n}.body.0", z).relu())
    z = head + conv(f"body.{blocks}", z)
    return conv("tail.1", pixel_shuffle(conv("tail.0.0", z), 2)) + MEAN


def mdsr(w: dict[str, Tensor], x: Tensor, part: int, factor: int) -> Tensor:
    """MDSR of one block on images of 0 to 255."""

    def conv(name: str, z: Tensor) -> Tensor:
        weight = w[f"{name}.weight"]
        return conv2d(z, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)

    z = conv("head.0", x - MEAN)
    for n in (0, 1):
        name = f"pre_process.{part}.{n}.body"
        z = z + conv(f"{name}.2", conv(f"{name}.0", z).relu())
    y = z + conv("body.0.body.2", conv("body.0.body.0", z).relu())
    y = z + conv("body.1", y)
    for stage in range(2 if factor == 4 else 1):
        y = pixel_shuffle(conv(f"upsample.{part}.{2 * stage}", y), 3 if factor == 3 else 2)
    return conv("tail.0", y) + MEAN


def psnr_y(run, folder: Path, scale: int) -> float:
    """Return the mean PSNR-Y of `run` on 0 to 255, output rounded, a border of the scale left out."""
    from selfsr.images.files import read_image
    from selfsr.images.paths import list_images

    found = []
    for path in list_images(folder):
        hr = torch.from_numpy(read_image(path).pixels).permute(2, 0, 1)[None].double()
        hr = hr[..., : hr.shape[-2] // scale * scale, : hr.shape[-1] // scale * scale]
        with torch.no_grad():
            sr = run((bicubic_lr(hr / 255, scale) * 255).float()).double().clamp(0, 255).round()
        difference = (sr - hr)[0, :, scale:-scale, scale:-scale].numpy()
        luma = np.tensordot([65.481, 128.553, 24.966], difference, 1) / 255
        found.append(10 * np.log10(255**2 / np.mean(luma**2)))
    return float(np.mean(found))


def evaluate_file(path: Path, folder: Path, scale: int, tmp_path: Path) -> float:
    out = tmp_path / "scores.json"
    command = [
        "evaluate",
        str(path),
        "--data",
        str(folder),
        "--scale",
        str(scale),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert not app(command, standalone_mode=False)
    (result,) = json.loads(out.read_text())["results"]
    return result["sets"]["Set"]["mean"]["psnr_y"]


CONTAINERS = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params": {k: v + 1 for k, v in state.items()}, "params_ema": state},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "module": lambda state: OrderedDict((f"module.{k}", v) for k, v in state.items()),
}


@pytest.mark.parametrize("legacy", [True, False], ids=["old pickle", "zip"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_evaluate_scores_edsr_in_any_container(container, legacy, image_folder, tmp_path):
    state = published(EdsrSpec(features=8, blocks=2), 2)
    path = tmp_path / "edsr_baseline_x2-1bc95232.pt"
    torch.save(CONTAINERS[container](state), path, _use_new_zipfile_serialization=not legacy)
    expected = psnr_y(lambda lr: edsr(state, lr, 2), image_folder, 2)
    assert evaluate_file(path, image_folder, 2, tmp_path) == pytest.approx(
        expected, abs=2e-3
    )  # a pixel may round otherwise


@pytest.mark.parametrize(("part", "scale"), [(0, 2), (1, 3), (2, 4)])
def test_evaluate_scores_mdsr_at_each_scale(part, scale, image_folder, tmp_path):
    state = published(MdsrSpec(features=8, blocks=1), 2)
    path = tmp_path / "mdsr_baseline-a00cab12.pt"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    expected = psnr_y(lambda lr: mdsr(state, lr, part, scale), image_folder, scale)
    assert evaluate_file(path, image_folder, scale, tmp_path) == pytest.approx(expected, abs=2e-3)


def test_evaluate_refuses_another_scale_than_the_file(image_folder, tmp_path):
    path = tmp_path / "edsr.pt"
    torch.save(published(EdsrSpec(features=8, blocks=1), 2), path)
    with pytest.raises(InputError, match=r"expected --scale 2, the scale of .*edsr.pt, got 4; leave --scale out"):
        evaluate_file(path, image_folder, 4, tmp_path)


# ---- what does not fit is refused with the reason


@pytest.mark.parametrize(
    ("given", "scale", "wanted", "channels", "message"),
    [
        (
            VdsrSpec(features=6, convs=3).build(2), 2, VdsrSpec(features=6, convs=5), 3,
            "the file contains VDSR with features 6, convs 3 .*, the network is VDSR .* convs 5 for",
        ),
        (
            EdsrSpec(features=8, blocks=2).build(2), 2, EdsrSpec(features=8, blocks=3), 3,
            "blocks 2, .*, the network is EDSR .* blocks 3,",
        ),
        (
            VdsrSpec(features=6, convs=3).build(2, 1), 2, VdsrSpec(features=6, convs=3), 3,
            "the file contains VDSR with features 6, convs 3 for gray, the network is VDSR .* convs 3 for color: ",
        ),
        (
            LapSrnSpec(features=4, convs=1).build(2, 1), 4, LapSrnSpec(features=4, convs=1), 1,
            "the file contains LapSRN x2 .*, the network is LapSRN x4 .*with start_fit: tail",
        ),
    ],
)  # fmt: skip
def test_unfit_start_names_both_networks(given, scale, wanted, channels, message, tmp_path):
    path = tmp_path / "start.pt"
    torch.save(given.state_dict(), path)
    with pytest.raises(InputError, match=message):
        load_into(wanted.build(scale, channels), path)


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("lapsrn_x2", ["scale=3", "crop_px=126"], "one of 2, 4, 8 for network lapsrn, got 3, because each level"),
        ("lapsrn_x2", ["data.channels=3"], "must be 1 for network lapsrn, got 3; the network works on luma"),
        ("srresnet_x4", ["scale=3", "crop_px=96"], "scale must be one of 2, 4, 8 for network srresnet, got 3"),
        ("dbpn_x4", ["scale=3", "crop_px=96"], "scale must be one of 2, 4, 8 for network dbpn, got 3"),
        ("mdsr", ["scale=[2,4]", "crop_px=96"], r"network.factors must be the scales of the run, \[2, 4\]"),
        ("edsr_baseline_x2", ["scale=[2,4]"], "scale must be one number for network edsr"),
    ],
)  # fmt: skip
def test_recipe_that_network_cannot_do_is_refused(recipe, settings, message):
    with pytest.raises(InputError, match=message):
        load_recipe(shipped_recipes()[recipe], settings)


# The recipes of the self-paced paper's networks: pacing on, and one key to switch it off.
PACED = ["srcnn_x2", "vdsr_x2", "drrn_x2", "lapsrn_x2", "lapsrn_x4", "srresnet_x4", "mdsr", "dbpn_x4", "rcan_x2"]
PACED += ["rdn_x2", "srdensenet_x4"]


@pytest.mark.parametrize("name", PACED)
def test_paced_recipe_can_switch_pacing_off(name):
    path = shipped_recipes()[name]
    pace = load_recipe(path).method.terms["pixel"].pace
    assert (pace.alpha, pace.beta, pace.peak) == (1.0, 0.0, 2.0)
    assert load_recipe(path, ["method.terms.pixel.pace=null"]).method.terms["pixel"].pace is None
    small = {"srcnn_x2", "vdsr_x2", "drrn_x2", "lapsrn_x2", "srresnet_x4", "mdsr"}
    assert (f"small_{name}" in shipped_recipes()) == (name in small)


def test_recipes_have_published_settings():
    recipes = {name: load_recipe(shipped_recipes()[name]) for name in PACED}
    table = {  # epochs of 1000 steps, batch, crops, kind of loss, channels, halvings
        "srcnn_x2": (300, 16, {2: 128}, "l2", 3, (200_000,)),
        "drrn_x2": (300, 16, {2: 192}, "l1", 1, (200_000,)),
        "lapsrn_x2": (300, 16, {2: 128}, "l2", 1, (200_000,)),
        "lapsrn_x4": (300, 16, {4: 128}, "l2", 1, (200_000,)),
        "srresnet_x4": (500, 16, {4: 128}, "l2", 3, (200_000,)),
        "mdsr": (650, 16, {2: 96, 3: 144, 4: 192}, "l1", 3, (200_000,)),
        "dbpn_x4": (1000, 20, {4: 128}, "l2", 3, (500_000,)),
        "rcan_x2": (300, 16, {2: 96}, "l1", 3, (200_000,)),
    }
    for name, expected in table.items():
        r = recipes[name]
        found = (
            r.steps / r.steps_per_epoch, r.batch, r.crops_px, r.method.terms["pixel"].kind, r.data.channels,
            tuple(r.schedule.at_steps),
        )  # fmt: skip
        assert found == expected, name
        assert r.optimizers["g"].lr == 1e-4
