"""Commands with a one-step model on a pretrained base: upscale, evaluate, inspect and doctor, on a model folder."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError
from selfsr.nets.diffusion.one_step import OneStepSpec
from selfsr.nets.weights import load_model, save_weights
from selfsr.upscaling.upscaler import Upscaler

HEIGHT, WIDTH = 36, 44


def call(*arguments: Any) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder of a network in float32."""
    root = tmp_path_factory.mktemp("one_step")
    torch.manual_seed(3)
    net = OneStepSpec(base=base, base_precision="float32", timestep=200, lora={"rank": 1}).build(2)  # pyright: ignore
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)
    save_weights(root / "net.safetensors", net, {})
    call("export", root / "net.safetensors", "-o", root / "model")
    (root / base.name).symlink_to(base)
    return root / "model"


def make_pixels() -> np.ndarray:
    """Return `[HEIGHT, WIDTH, 3]` in [0, 1]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([0.5 + 0.4 * np.sin(x / 5), 0.5 + 0.4 * np.cos(y / 7), (x * y % 256) / 255], axis=-1)


def write_image(path: Path, *, alpha: bool = False) -> Path:
    pixels = np.round(255 * make_pixels()).astype(np.uint8)
    mask = np.where(np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - 20)) < 14, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([pixels, mask]) if alpha else pixels).save(path)
    return path


def test_upscale_keeps_alpha_and_notes_the_color_fix(model: Path, tmp_path: Path) -> None:
    source = write_image(tmp_path / "in.png", alpha=True)
    texts, outputs = {}, {}
    for fix in ("default", "none"):
        target = tmp_path / f"{fix}.png"
        options = [] if fix == "default" else ["--color-fix", fix]
        call("upscale", source, "-m", model, "-o", target, "--precision", "float32", *options)
        image = Image.open(target)
        assert (image.mode, image.size) == ("RGBA", (2 * WIDTH, 2 * HEIGHT))
        texts[fix], outputs[fix] = image.getexif()[305], np.asarray(image).astype(float)
    assert texts["default"].endswith("one-step diffusion x2, color fix wavelet")
    assert texts["none"].endswith("color fix none")
    assert np.abs(outputs["default"] - outputs["none"])[..., :3].mean() > 1
    assert outputs["default"][40, 40, 3] == 255
    assert outputs["default"][2, 2, 3] == 0


@pytest.mark.slow
def test_upscale_keeps_16_bits(model: Path, tmp_path: Path) -> None:
    import cv2

    pixels = np.round(65535 * make_pixels()).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "in.png"), pixels[..., ::-1])
    call("upscale", tmp_path / "in.png", "-m", model, "-o", tmp_path / "out.png")
    written = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16
    assert len(np.unique(written % 256)) > 200  # not 8 bits in 16
    expected = load_model(model).upscale(torch.from_numpy(pixels / 65535).permute(2, 0, 1)[None].float())
    difference = np.abs(written[..., ::-1] / 65535 - expected[0].permute(1, 2, 0).numpy())
    assert difference.max() < 2e-4


@pytest.mark.parametrize("option", [["--seed", "3"], ["--steps", "2"]])
def test_upscale_refuses_what_one_output_has_no_use_for(option: list[str], model: Path, tmp_path: Path) -> None:
    source = write_image(tmp_path / "in.png")
    with pytest.raises(InputError, match=f"expected no {option[0]} with one-step diffusion, which has one output"):
        call("upscale", source, "-m", model, "-o", tmp_path / "out.png", *option)
    assert not (tmp_path / "out.png").exists()


def test_tiles_start_at_multiples(model: Path) -> None:
    loaded = load_model(model)
    assert loaded.multiple_of_px == 2
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    starts: list[tuple[int, int]] = []
    hook = loaded.net.register_forward_pre_hook(lambda _, inputs: starts.append(read_start(inputs[0])))
    coded = torch.stack([x, y, x])[None] / 255
    options: dict[str, Any] = {"device": torch.device("cpu"), "precision": "float32", "overlap_px": 11}
    Upscaler(loaded, tile=32, **options)(coded)
    hook.remove()
    assert len(set(starts)) == 4
    assert all(row % 2 == column % 2 == 0 for row, column in starts)


def test_tiles_equal_the_complete_image_without_norms_and_attention(model: Path) -> None:
    """Norms and attention see the tile; the rest must not depend on it."""
    loaded = load_model(model)
    net: Any = loaded.net
    net.space.net = copy.deepcopy(net.space.net)
    for part in (net.unet, net.space.net):
        for name, module in list(part.named_modules()):
            if isinstance(module, nn.GroupNorm):
                part.set_submodule(name, nn.Identity())
            if type(module).__name__ in ("Transformer2DModel", "Attention"):
                module.forward = (lambda x, **_: (x,)) if "Transformer" in type(module).__name__ else (lambda x, **_: x)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(300.0), indexing="ij")
    lr = torch.stack([0.5 + 0.4 * (x / 5).sin(), 0.5 + 0.4 * (y / 7).cos(), (x * y % 256) / 255])[None]
    options: dict[str, Any] = {"device": torch.device("cpu"), "precision": "float32"}
    complete = Upscaler(loaded, tile="off", **options)(lr)
    tiled = Upscaler(loaded, tile=224, overlap_px=112, **options)(lr)
    assert complete.std() > 0.05
    torch.testing.assert_close(tiled, complete, atol=1e-4, rtol=0)


def read_start(tile: torch.Tensor) -> tuple[int, int]:
    column, row = (round(float(value) * 255) for value in tile[0, :2, 0, 0])
    return row, column


def test_evaluate_scores_the_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "Set").mkdir()
    write_image(tmp_path / "Set" / "a.png")
    call("evaluate", model, "--data", tmp_path / "Set", "--out", tmp_path / "scores.json")
    text = (tmp_path / "scores.json").read_text()
    assert "wavelet" in text
    assert "psnr_y" in text


def test_inspect_names_base_and_adapters(model: Path) -> None:
    printed = call("inspect", model)
    network = load_model(model).net
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    statement = json.loads((model / "selfsr.json").read_text())["network"]
    assert f"tiny_sd, checksum {statement['base_sha256']}" in printed
    assert f"trained adapters of rank 1: {trained:,} numbers" in printed


def test_inspect_counts_the_files_of_the_network_only(model: Path) -> None:
    size = json.loads(call("inspect", model, "--json"))["bytes"]
    (model / "merged").mkdir()
    (model / "merged" / "unet.safetensors").write_bytes(bytes(1_000))
    assert json.loads(call("inspect", model, "--json"))["bytes"] == size > 0


def test_doctor_lists_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsr.machine import environment

    found = environment.list_versions()
    assert {"diffusers", "peft", "transformers"} <= set(found)
    monkeypatch.setattr(environment, "list_versions", lambda: found | {"peft": None})
    assert 'peft not installed: pip install "selfsr[diffusion]"' in call("doctor")
