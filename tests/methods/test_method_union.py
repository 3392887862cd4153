"""Every method of the union trains, counts, saves and resumes. A new method adds its smallest options to OPTIONS."""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter

from factories import make_batch, make_generator
from run_folders import assert_resumes, assert_same, read_checkpoint, read_log, train
from selfsr.methods import Method, MethodSetup
from selfsr.methods.union import AnyMethod, MethodChoice
from selfsr.nets.diffusion.one_step import OneStepSpec
from selfsr.nets.diffusion.prompt import Prompt
from selfsr.nets.diffusion.residual_shifting import ResidualShiftingSpec
from selfsr.nets.weights import save_weights
from selfsr.recipe import parse_recipe
from selfsr.step import GENERATOR, Clock, MaskedSum
from selfsr.training.assemble import assemble
from selfsr.training.loop import losses_to_backward
from tiny_bases import FEATURES, save_base

ADAPTERS: dict[str, Any] = {"rank": 1, "targets": ["attention"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "regression": {},
    "gan": {"discriminators": {"d": {"network": {"kind": "patch", "features": 4, "layers": 1}, "weight": 0.1}}},
    "denoising": {},
    "shift_distillation": {"teacher": "teacher.safetensors"},
    "score_distillation": {"distillation": {"kind": "vsd", "guidance": 2.0, "fake_lora": ADAPTERS}},
}
# Networks of the methods for diffusion networks.
NETWORKS: dict[str, dict[str, Any]] = {
    "denoising": {"kind": "residual_shifting", "unet": {"channels": [8], "groups": 4}, "shift": {"steps": 2}},
}
NETWORKS["shift_distillation"] = {**NETWORKS["denoising"], "one_step": True}
NETWORKS["score_distillation"] = {"kind": "one_step", "base": "base", "prompt_file": "prompt.safetensors"}
NETWORKS["score_distillation"] |= {"base_precision": "float32", "lora": ADAPTERS, "timestep": 200}
# A plain mean, a masked sum, and a weight that is calibrated in training.
TERMS: dict[str, Any] = {
    "pixel": {"kind": "l1"},
    "similarity": {
        "kind": "self_similarity",
        "weight": {"match": "largest", "calibrate_steps": 2},
        "search_px": 9,
        "window_px": 5,
    },
}
KINDS = [get_args(spec.model_fields["kind"].annotation)[0] for spec in get_args(AnyMethod)]


@pytest.fixture(params=KINDS)
def document(request: pytest.FixtureRequest, tiny: dict) -> dict[str, Any]:
    """Return a recipe with two steps of each method."""
    kind = request.param
    options = {"kind": kind, "terms": copy.deepcopy(TERMS), **copy.deepcopy(OPTIONS[kind])}
    network = NETWORKS.get(kind, tiny["network"])
    if "teacher" in options:
        options["teacher"] = str(request.getfixturevalue("teacher"))
    if "base" in network:
        network = {**network, **request.getfixturevalue("base")}
    recipe = {**tiny, "steps": 2, "evaluate": None, "checkpoints": {"every_steps": 1}, "method": options}
    trained_nets = parse_spec(options).trained_nets
    optimizers = {name: {"kind": "adam", "lr": 1e-3} for name in trained_nets}
    return {**recipe, "network": network, "optimizers": optimizers}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the keys of a network that name a base and its prompts."""
    folder = save_base(tmp_path_factory.mktemp("base"), text=False)
    Prompt(*torch.randn(2, 3, FEATURES)).save(folder / "prompt.safetensors")
    return {"base": str(folder), "prompt_file": str(folder / "prompt.safetensors")}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights file of a network that samples."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_weights(path, make_sampled(NETWORKS["denoising"]), {})
    return path


def make_sampled(options: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    return ResidualShiftingSpec(**options).build(2)


def parse_spec(options: dict) -> AnyMethod:
    return TypeAdapter(MethodChoice).validate_python(options)


def build(document: dict) -> Method:
    return parse_spec(document["method"]).build(make_setup(document))


def make_setup(document: dict) -> MethodSetup:
    network = document["network"]
    if network["kind"] == "one_step":
        generator = OneStepSpec(**network).build(2).train()
    else:
        generator = make_sampled(network) if network["kind"] == "residual_shifting" else make_generator()
    return MethodSetup(generator, torch.device("cpu"), channels=3, crop_px=32, ema_forward=None)


def take_step(method: Method, step: int) -> list[str]:
    """Take every update of a step without an optimizer; return the names of the updated networks."""
    names = []
    for update in method.updates(make_batch(), Clock(step, 1, 2)):
        torch.stack(list(losses_to_backward(update, {}, 1, 1).values())).sum().backward()
        names.append(update.net)
    return names


def test_every_method_has_options_in_this_file() -> None:
    assert set(OPTIONS) == set(KINDS)


def test_two_steps_move_every_network_that_the_method_names(document: dict, tmp_path: Path) -> None:
    recipe = parse_recipe(document, "test")
    initial = assemble(recipe, tmp_path / "initial", device="cpu", resume=False)
    initial.loader.close()
    folder = train(document, tmp_path / "run")
    assert set(initial.method.nets) == set(recipe.method.trained_nets)
    assert GENERATOR in recipe.method.trained_nets
    trained = read_checkpoint(folder)["nets"]
    for name, net in initial.method.nets.items():
        moving = [(key, value) for key, value in net.named_parameters() if value.requires_grad]
        still = [key for key, value in moving if torch.equal(trained[name][key], value)]
        assert moving
        assert still == [], name
        assert name in read_log(folder)[-1]["grad_norm"]


def test_counts_have_the_masked_terms_and_their_pixels(document: dict) -> None:
    method, batch = build(document), make_batch()
    (update,) = (update for update in method.updates(batch, Clock(1, 1, 2)) if update.net == GENERATOR)
    masked = {name: loss.count for name, loss in update.losses.items() if isinstance(loss, MaskedSum)}
    assert masked
    assert_same(method.count_masked_pixels(batch), masked)


def test_a_generator_update_has_all_losses_and_is_finished_by_the_objective(document: dict) -> None:
    method = build(document)
    spec = parse_spec(document["method"])
    (update,) = (update for update in method.updates(make_batch(), Clock(1, 1, 2)) if update.net == GENERATOR)
    assert set(update.losses) == {*spec.terms, *spec.extra_loss_weights}
    assert {name for name in update.scalars if not name.startswith("denoising/")} == {"weight/similarity"}
    assert method.state()["measured"] == 1


def test_the_state_survives_a_checkpoint(document: dict) -> None:
    method, restored = build(document), build(document)
    take_step(method, 1)
    assert method.state()["measured"] == 1
    restored.load(copy.deepcopy(method.state()))
    assert_same(restored.state(), method.state())


def test_a_costliest_step_updates_every_network_in_its_first_step(document: dict) -> None:
    spec = parse_spec(document["method"]).with_costliest_step()
    assert isinstance(spec, type(parse_spec(document["method"])))
    assert sorted(take_step(spec.build(make_setup(document)), 1)) == sorted(spec.trained_nets)


def test_the_number_of_generator_updates_is_the_number_taken(document: dict) -> None:
    method, spec = build(document), parse_spec(document["method"])
    taken = sum(take_step(method, step).count(GENERATOR) for step in (1, 2, 3))
    assert spec.count_generator_updates(3) == taken


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(document: dict, tmp_path: Path) -> None:
    assert_resumes(document, tmp_path)
