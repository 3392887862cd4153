"""The memory of a step on a pretrained base, estimated without the base."""

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError
from selfsr.nets.diffusion.base_layouts import find_layout, list_layouts
from selfsr.recipe import parse_recipe
from selfsr.training.memory import StepMemory, _make_batches, estimate_step_memory
from selfsr.training.memory_table import describe_memory


@pytest.fixture
def recipe(tiny: dict[str, Any], base: Path) -> dict[str, Any]:
    network = {"kind": "one_step", "base": str(base), "lora": {"rank": 2}}
    method = {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}}
    return {**tiny, "network": network, "method": method, "precision": "float32", "evaluate": None}


@pytest.mark.parametrize(
    ("name", "millions", "vae_millions"), [("sd15", 859.5, 83.7), ("sd21", 865.9, 83.7), ("sd3", 2028.3, 83.8)]
)
def test_layouts_have_the_published_sizes(name: str, millions: float, vae_millions: float) -> None:
    layout = list_layouts()[name]
    for part, expected in (("unet" if "unet" in layout else "transformer", millions), ("vae", vae_millions)):
        with torch.device("meta"):
            net = getattr(diffusers, layout[part]["_class_name"]).from_config(layout[part])
        assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 1) == expected


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("stable-diffusion-2-1-base", "sd21"),
        ("SD2.1", "sd21"),
        ("stable-diffusion-v1-5", "sd15"),
        ("stable-diffusion-3-medium-diffusers", "sd3"),
    ],
)
def test_layout_follows_from_the_name(folder: str, name: str) -> None:
    assert find_layout(Path("bases") / folder, None) == name


def measure(recipe: dict[str, Any], folder: Path) -> int:
    """Return the bytes of all weights, and the peak of the tensors of two real steps."""
    from selfsr.machine.memory import PeakBytes
    from selfsr.runfolder.log import Meter
    from selfsr.step import Clock
    from selfsr.training.assemble import assemble
    from selfsr.training.guard import FiniteGuard
    from selfsr.training.loop import take_step

    run = assemble(parse_recipe(recipe, "my.yaml"), folder, device="cpu", resume=False)
    run.loader.close()
    tensors = [t for net in (run.generator, run.ema.net) for t in (*net.parameters(), *net.buffers())]
    tensors += run.generator.space.net.parameters()  # pyright: ignore
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    with PeakBytes() as counted:
        for number in (1, 2):
            batches = _make_batches(run)
            for batch in batches:
                batch.hr.fill_(0.5)
                batch.lr.fill_(0.4)
            take_step(run, batches, Clock(number, 10, 10), Meter(), FiniteGuard())
    return sum(storages.values()) + counted.peak


def copy_configurations(base: Path, folder: Path) -> str:
    """Return a base of which only the configurations are there."""
    for part in ("unet", "vae", "scheduler"):
        (folder / part).mkdir(parents=True)
        for path in (base / part).glob("*.json"):
            (folder / part / path.name).write_bytes(path.read_bytes())
    return str(folder)


def test_estimate_is_what_real_steps_allocate(recipe: dict[str, Any], base: Path, tmp_path: Path) -> None:
    network = {**recipe["network"], "checkpointing": False, "lora": {"rank": 2, "targets": ["to_q"]}}
    recipe = {**recipe, "network": network, "ema_decay": 0.9}
    configured = {**network, "base": copy_configurations(base, tmp_path / "configured")}
    only_sizes = {**recipe, "network": configured, "data": {**recipe["data"], "hr": "nowhere"}}
    memory = estimate_step_memory(parse_recipe(only_sizes, "my.yaml"), device="cpu", load_data=False)
    assert memory is not None
    assert memory.peak == pytest.approx(
        measure(recipe, tmp_path / "run"), rel=0.03
    )  # its resampling tables are counted as constants
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    matrices = [m for m in unet.modules() if type(m) in (torch.nn.Linear, torch.nn.Conv2d) and m is not unet.conv_out]
    halved = sum(matrix.weight.numel() for matrix in matrices)
    assert memory.frozen == 4 * sum(p.numel() for p in unet.parameters()) - 2 * halved
    vae = diffusers.AutoencoderKL.from_pretrained(base / "vae")
    assert memory.autoencoder == 4 * sum(p.numel() for p in vae.parameters())
    assert memory.trained - memory.gradients == 32 + 4 * 77 * 16  # checksum and embeddings
    assert memory.average == memory.trained
    assert memory.optimizer == pytest.approx(2 * memory.gradients, rel=0.05)  # and its counters
    assert 0 < memory.kept < memory.passes


@pytest.mark.slow
def test_table_needs_neither_base_nor_data(recipe: dict[str, Any], base: Path, tmp_path: Path) -> None:
    recipe["data"] |= {"hr": "nowhere"}
    recipe["network"]["base"] = copy_configurations(base, tmp_path / "configured")
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(recipe))
    result = CliRunner().invoke(cli.app, ["train", str(path), "--dry-run", "--memory"])
    assert result.exit_code == 0, result.exception
    rows = dict(re.findall(r"^  (\S.*?)\s{2,}([\d.,]+)", result.output + result.stderr, re.MULTILINE))
    parts = {name: float(number.replace(",", "")) for name, number in rows.items()}
    assert list(parts)[:3] == ["frozen base", "autoencoder", "trained weights"]
    assert sum(parts.values()) == pytest.approx(2 * parts["sum"], abs=0.4)


def test_table_has_a_line_for_each_use() -> None:
    sizes = dict.fromkeys(("frozen", "autoencoder", "trained", "average", "others", "optimizer"), 2**30)
    memory = StepMemory(**sizes, gradients=2**20, kept=2**21, peak=7 * 2**30, precision="bfloat16")
    tiny = {"name": "m", "scale": 2, "batch": 4, "accumulate": 2, "crop_px": 32, "steps": 1}
    tiny |= {"data": {"kind": "folder", "hr": "x"}, "network": {"kind": "edsr"}, "schedule": {"kind": "constant"}}
    tiny |= {
        "method": {"kind": "regression", "terms": {"a": {"kind": "l1"}}},
        "optimizers": {"g": {"kind": "adam", "lr": 1}},
    }
    lines = describe_memory(memory, parse_recipe(tiny, "m"))
    assert "2 images in a micro-batch" in lines[0]
    assert "  passes at their peak     1,024   of which gradients 1.0, and 2.0 kept for the backward pass" in lines
    assert "  sum                      7,168" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory"], "expected no --memory without --dry-run"),
        (["--dry-run", "--layout", "sd21"], "expected no --layout without --memory"),
        (["--dry-run", "--memory", "--layout", "sd9"], "--layout: expected one of sd15, sd21, sd3, got 'sd9'"),
        (
            ["--dry-run", "--memory", "--set", "network.base=my_base"],
            "choose its size with --layout sd15 or sd21 or sd3",
        ),
    ],
)
def test_mistakes_are_one_sentence(options: list[str], message: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(InputError, match=message) as refused:
        raise CliRunner().invoke(cli.app, ["train", str(path), *options]).exception  # pyright: ignore
    assert "\n" not in str(refused.value)
