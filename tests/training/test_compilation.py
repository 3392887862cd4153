"""Compiled networks: which blocks, the same training, the same files, and what happens where compiling fails."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.srcnn import SrcnnSpec
from selfsr.nets.weights.load import load_model
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import load_state
from selfsr.training import compilation
from selfsr.training.compilation import find_blocks
from selfsr.training.loop import fit
from two_processes import run_in_two_processes


@pytest.mark.parametrize(
    ("spec", "classes"),
    [
        (EdsrSpec(features=8, blocks=3), ["ResidualBlock"] * 3),
        (RrdbSpec(features=8, blocks=2), ["RRDB"] * 2),  # and not the dense blocks within
        (SrcnnSpec(features=(8, 6)), []),
    ],
)
def test_blocks_are_the_largest_that_repeat(spec: Any, classes: list[str]) -> None:
    blocks = find_blocks(spec.build(2))
    assert [type(block).__name__ for block in blocks] == classes


def test_one_block_alone_and_layers_of_torch_do_not_repeat() -> None:
    class Block(nn.Module):
        pass

    assert find_blocks(nn.Sequential(Block(), nn.ReLU(), nn.ReLU())) == []
    assert len(find_blocks(nn.ModuleList([Block(), nn.Sequential(Block(), Block())]))) == 2


# ---- runs


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compile gradients, but no C++ code; return the list that gets the number of operators of each graph."""
    from torch._dynamo.backends.debugging import aot_eager

    graphs: list[int] = []

    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        graphs.append(len(graph.graph.nodes))
        return aot_eager(graph, inputs)

    monkeypatch.setitem(compilation._OPTIONS, "default", {"backend": backend})
    return graphs


def make_recipe(tiny: dict, **changes: Any) -> Any:
    gan = {
        "kind": "gan",
        "terms": {"pixel": {"kind": "l1"}},
        "discriminators": {"d": {"network": {"kind": "unet_sn", "features": 4}, "weight": 0.1}},
    }
    # With this eps a gradient that is only rounding does not move its weight by a full step.
    adam = {"kind": "adam", "lr": 1e-2, "eps": 1e-2}
    return parse_recipe({**tiny, "method": gan, "optimizers": {"g": adam, "d": adam}, "evaluate": None, **changes}, "x")


def train(recipe: Any, folder: Path, **options: Any) -> dict[str, Any]:
    fit(recipe, folder, device="cpu", **options)
    return load_state(folder, print)


def check_same(a: dict[str, Any], b: dict[str, Any], **tolerance: float) -> None:
    for part in ("g", "d"):
        assert list(a["nets"][part]) == list(b["nets"][part])
        for name, value in a["nets"][part].items():
            torch.testing.assert_close(b["nets"][part][name], value, **tolerance)
    assert list(a["ema"]) == list(b["ema"])
    for name, value in a["ema"].items():
        torch.testing.assert_close(b["ema"][name], value, **tolerance)


@pytest.mark.slow
@pytest.mark.compile
def test_compiled_run_trains_saves_and_resumes_as_without(
    tiny: dict, tmp_path: Path, traced: list[int], capsys: pytest.CaptureFixture
) -> None:
    plain = train(make_recipe(tiny), tmp_path / "plain")
    assert traced == []
    straight = train(make_recipe(tiny, compile="default"), tmp_path / "straight")
    assert traced
    assert "fails here" not in "".join(capsys.readouterr())
    check_same(plain, straight, rtol=1e-5, atol=1e-6)

    train(make_recipe(tiny, compile="default", steps=3, schedule={"kind": "constant"}), tmp_path / "half")
    torch.compiler.reset()
    constant = make_recipe(tiny, compile="default", schedule={"kind": "constant"})
    resumed = train(constant, tmp_path / "half", resume=True)
    check_same(train(constant, tmp_path / "whole"), resumed, rtol=0, atol=0)

    model = load_model(tmp_path / "straight" / "weights" / "last.safetensors")
    assert model.architecture == "EDSR"
    assert list(model.net.state_dict()) == list(plain["nets"]["g"])


def test_failing_compiler_is_reported_once_and_the_run_is_as_without(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def backend(graph: Any, inputs: list[Tensor]) -> Any:
        raise RuntimeError("no C++\ncompiler")

    monkeypatch.setitem(compilation._OPTIONS, "graphs", {"backend": backend})
    plain = train(make_recipe(tiny), tmp_path / "plain")
    capsys.readouterr()
    fallen = train(make_recipe(tiny, compile="graphs"), tmp_path / "fallen")
    check_same(plain, fallen, rtol=0, atol=0)
    shown = "".join(capsys.readouterr())
    assert shown.count("compile: graphs fails here (") == 1
    assert "no C++ compiler" in shown
    assert "); the networks run as they are, which is slower" in shown


@pytest.mark.compile
def test_trial_leaves_no_trace(traced: list[int]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    sample = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    autocast = lambda: torch.autocast("cpu", torch.bfloat16)  # noqa: E731
    assert compilation.compile_networks({"g": net}, {"g": {2: sample}}, "default", autocast)
    assert traced
    assert torch.equal(torch.get_rng_state(), state)
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.compile
def test_a_variant_that_fails_in_a_step_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compile_once(module: torch.fx.GraphModule, _inputs: object) -> object:
        if calls:
            raise RuntimeError("no C++\ncompiler")
        calls.append(1)
        return module.forward

    calls: list[int] = []
    monkeypatch.setattr(compilation, "_reported_failures", set())
    net = nn.Conv2d(3, 4, 3)
    net.compile(dynamic=False, backend=compile_once)
    for side_px in (8, 9, 10):
        with compilation.tolerate_failures(True):
            image = torch.rand(1, 3, side_px, side_px)
            torch.testing.assert_close(net(image), nn.functional.conv2d(image, net.weight, net.bias))
    assert capsys.readouterr().err == (
        "compile: a block does not compile here (no C++ compiler); such blocks run as they are, which is slower\n"
    )


@pytest.mark.compile
def test_a_failure_in_another_process_leaves_all_as_they_are(
    monkeypatch: pytest.MonkeyPatch, traced: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compilation, "share_with_all", lambda make: [make(), "no compiler there"])
    net, autocast = nn.Sequential(nn.Conv2d(3, 4, 3)), contextlib.nullcontext
    assert not compilation.compile_networks({"g": net}, {"g": {2: torch.rand(1, 3, 8, 8)}}, "default", autocast)
    assert traced
    assert "forward" not in net.__dict__
    assert "default fails here (no compiler there)" in capsys.readouterr().err


def test_network_that_samples_refuses_to_be_compiled(tiny: dict) -> None:
    changes = {
        "network": {"kind": "residual_shifting"},
        "method": {"kind": "denoising", "terms": {}},
        "compile": "default",
    }
    with pytest.raises(InputError, match=r"compile must be off for network residual_shifting, since .* got default"):
        parse_recipe({**tiny, **changes}, "x")


@pytest.mark.slow
@pytest.mark.compile
def test_inductor_trains_as_without(tiny: dict, tmp_path: Path) -> None:
    """The real compiler; it needs a C++ compiler."""
    plain = train(make_recipe(tiny), tmp_path / "plain")
    compiled = train(make_recipe(tiny, compile="default"), tmp_path / "compiled")
    check_same(plain, compiled, rtol=1e-3, atol=1e-5)


PROGRAM = """
import json, sys
from pathlib import Path
import yaml
from torch import distributed
from selfsr.recipe import parse_recipe
from selfsr.training import assemble
from selfsr.training.loop import fit

compile_networks, outcomes = assemble.compile_networks, []
assemble.compile_networks = lambda *args, **options: outcomes.append(compile_networks(*args, **options)) or outcomes[-1]
fit(parse_recipe(yaml.safe_load(Path("recipe.yaml").read_text()), "x"), Path("two"), device="cpu")
Path(f"compiled_{distributed.get_rank()}.json").write_text(json.dumps(outcomes))
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.compile
def test_compiled_blocks_of_two_processes_train_as_one_process_without(tiny: dict, tmp_path: Path) -> None:
    """Compile blocks with Inductor and train them under DDP."""
    recipe = make_recipe(tiny, batch=4)
    plain = train(recipe, tmp_path / "plain")
    document = recipe.model_dump(mode="json") | {"compile": "default"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "train_two.py").write_text(PROGRAM)
    run_in_two_processes("train_two.py", cwd=tmp_path)
    assert [(tmp_path / f"compiled_{rank}.json").read_text() for rank in range(2)] == ["[true]", "[true]"]
    check_same(plain, load_state(tmp_path / "two", print), rtol=1e-3, atol=1e-4)
