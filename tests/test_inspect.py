"""`selfsr inspect`: facts about a file, and the lines of a recipe that train it."""

import json
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError
from selfsr.nets.spandrel.any import SpandrelSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.weights.save import save_weights
from selfsr.recipe import parse_recipe
from selfsr.recipe.yaml12 import read_yaml


def call(*arguments):
    result = CliRunner(env={"COLUMNS": "80"}).invoke(cli.app, ["inspect", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(status=result.exit_code, out=result.stdout)


@pytest.mark.parametrize(
    "spec",
    [SpanSpec(features=6), SpandrelSpec(architecture="DITN", options={"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1})],
)
def test_printed_lines_are_a_recipe(spec, tiny, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"params_ema": spec.build(2).half().state_dict()}, path)
    out = call(path).out
    assert "float16), under params_ema" in out
    lines = read_yaml(out.split("recipe:\n")[1].split("\nThe short form")[0], "printed")
    tiny["data"] |= lines.pop("data")
    recipe = parse_recipe({**tiny, **lines}, "test")
    assert (recipe.network, recipe.scale, recipe.start_from) == (spec, 2, str(path))


def test_json_has_the_facts(tmp_path):
    spec, path = SpanSpec(features=6), tmp_path / "net.safetensors"
    net = spec.build(4)
    save_weights(path, net, {"note": "two\nlines"})
    facts = json.loads(call(path, "--json").out)
    assert facts["bytes"] == path.stat().st_size
    assert facts["parameters"] == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert (facts["architecture"], facts["scale"], facts["channels"]) == ("SPAN", [4], 3)
    assert facts["precision"] == {"float32": len(net.state_dict())}
    assert facts["network"] == spec.model_dump(mode="json")
    assert facts["metadata"]["note"] == "two\nlines"
    assert "  note: 2 lines, see --json" in call(path).out


def test_run_folder_and_shipped_model_are_found(tmp_path):
    save_weights(tmp_path / "weights" / "last.safetensors", SpanSpec(features=6).build(2), {})
    assert f"{tmp_path}/weights/last.safetensors" in call(tmp_path).out
    save_weights(tmp_path / "weights" / "best.pth", SpanSpec(features=6).build(2), {})
    assert f"{tmp_path}/weights/best.pth" in call(tmp_path).out
    assert "network     RCAN x4, color, 404,099 parameters" in call("photo_x4").out
    with pytest.raises(InputError, match="a run folder, a checkpoint or a model folder, got the folder"):
        call(tmp_path / "weights")


def test_network_that_cannot_be_trained_here_is_described(tmp_path, monkeypatch):
    monkeypatch.setattr("selfsr.nets.weights.identify.read_spec", lambda _: None)
    torch.save(SpanSpec(features=6).build(2).state_dict(), tmp_path / "net.pth")
    assert "training    not possible here; selfsr upscale, evaluate" in call(tmp_path / "net.pth").out
