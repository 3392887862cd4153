"""`network: {kind: from_file}`: the network, scale and channels of the start file, written into the recipe."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from factories import recipe_error
from run_folders import read_lines, train
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.spandrel.any import SpandrelSpec
from selfsr.nets.spandrel.compact import CompactSpec
from selfsr.nets.vdsr import VdsrSpec
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.save import save_weights
from selfsr.recipe import dump_recipe, load_recipe, parse_recipe, read_yaml
from selfsr.recipe.yaml12 import write_yaml

SPECS = {
    "own": EdsrSpec(features=6, blocks=1),
    "kind": CompactSpec(features=6, convs=2),
    "spandrel": SpandrelSpec(architecture="SAFMN", options={"dim": 8, "n_blocks": 1}),
}


@pytest.fixture
def start(tiny, tmp_path):
    """Return a function that saves a network and the recipe that starts from its file."""

    def save(spec, scale=2, channels=3, *, bare=False):
        torch.manual_seed(5)
        path, net = tmp_path / "start.safetensors", spec.build(scale, channels)
        save_weights(path, net, {})
        if bare:  # as a file from elsewhere
            save_file(load_file(path), path)
        document = {**tiny, "network": {"kind": "from_file"}, "start_from": str(path)}
        document["method"] = {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}}
        del document["scale"]
        return document

    return save


@pytest.mark.parametrize(("name", "bare"), [("own", False), ("kind", True), ("spandrel", True), ("spandrel", False)])
def test_recipe_gets_the_network_scale_and_channels_of_the_file(start, name, bare):
    recipe = parse_recipe(start(SPECS[name], bare=bare), "my.yaml")
    assert (recipe.network, recipe.scale, recipe.data.channels) == (SPECS[name], 2, 3)
    again = read_yaml(dump_recipe(recipe), "dump")
    assert again["network"] == SPECS[name].model_dump(mode="json")


def test_run_resumes_and_its_weights_open_without_the_start_file(start, tmp_path):
    document = start(SPECS["spandrel"], bare=True) | {"steps": 2, "checkpoints": {"every_steps": 1, "keep_last": 2}}
    document["evaluate"] = {**document["evaluate"], "every_steps": 1, "samples": 0}
    folder = train(document, tmp_path / "run")
    first = read_lines(folder / "eval.jsonl")[0]
    (tmp_path / "start.safetensors").unlink()
    assert first["step"] == 0
    model = load_model(folder / "weights" / "last.safetensors")
    assert (model.scale, model.channels) == (2, 3)
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.network == SPECS["spandrel"]
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    expected = torch.load(newest / "state.pt", weights_only=True)["ema"]
    shutil.rmtree(newest)
    train(recipe.model_dump(mode="json"), folder, resume=True)
    state = torch.load(newest / "state.pt", weights_only=True)["ema"]
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_shipped_model_is_a_start(start):
    recipe = parse_recipe({**start(SPECS["own"]), "start_from": "photo_x4"}, "my.yaml")
    assert (recipe.network.kind, recipe.scale) == ("rcan", 4)


def test_setting_the_kind_replaces_the_options_of_the_network(start, tiny, tmp_path):
    document = start(SPECS["kind"])
    (tmp_path / "my.yaml").write_text(write_yaml(tiny))
    settings = ["network.kind=from_file", f"start_from={document['start_from']}"]
    assert load_recipe(tmp_path / "my.yaml", settings).network == SPECS["kind"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 4}, "my.yaml: scale: expected that of "),
        ({"scale": [2, 4]}, "my.yaml: scale: expected that of "),
        ({"start_from": None}, "my.yaml: network.kind: from_file takes the network of the file start_from, got None"),
        ({"network": {"kind": "from_file", "blocks": 3}}, "my.yaml: network.blocks: unknown key"),
        ({"start_from": "photo_x9"}, "my.yaml: model: expected a weights file or one of "),
    ],
)
def test_contradictions_are_refused(start, changes, message):
    assert recipe_error({**start(SPECS["own"]), **changes}).startswith(message)


def test_other_channels_are_refused(start):
    document = start(SPECS["own"], channels=1)
    assert parse_recipe(document, "my.yaml").data.channels == 1
    document["data"] = {**document["data"], "channels": 3}
    assert "data.channels: expected that of" in recipe_error(document)


def test_file_of_any_scale_needs_one(start):
    document = start(VdsrSpec(features=6, convs=3), channels=1)
    assert "fits any scale, got none; add it to the recipe." in recipe_error(document)
    assert parse_recipe({**document, "scale": 3, "crop_px": 33}, "my.yaml").scale == 3
