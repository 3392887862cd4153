"""Frozen parameters and learning rates by name: what they change, what they leave, and resuming with both."""

import pytest
import torch
from torch import nn

from run_folders import assert_resumes, read_checkpoint, train
from selfsr.errors import InputError
from selfsr.nets.weights.save import save_weights
from selfsr.recipe import parse_recipe
from selfsr.recipe.optim import AdamSpec, GroupSpec
from selfsr.training.batch_norm import FrozenBatchNorm2d
from selfsr.training.parameters import build_optimizer, freeze


@pytest.fixture
def quick(tiny):
    """Return a recipe of four steps with one loss and a checkpoint in each second step."""
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    return {**tiny, "steps": 4, "evaluate": None, "checkpoints": {"every_steps": 2, "keep_last": 3}}


def build_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3))


def test_frozen_layers_keep_their_weights_and_statistics():
    net = build_net()
    line = freeze(net, ["0.*", "1.*"])
    assert line == "freeze: 120 of 231 trained numbers in 4 of 6 tensors stay as they are"
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    optimizer = build_optimizer(net, AdamSpec(lr=0.1), "optimizers.g.groups")
    for _ in range(2):
        net(torch.rand(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"2.weight", "2.bias"}
    assert isinstance(net[1], FrozenBatchNorm2d)
    assert not net[1].training


def test_batch_norm_with_a_trained_parameter_keeps_learning_statistics():
    net = build_net()
    freeze(net, ["1.weight"])
    net.train()(torch.rand(2, 3, 8, 8))
    assert net[1].running_mean.any()


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["*"], r"freeze: expected patterns that leave parameters to train, got \*, which match all 6; freeze fewer"),
        (["0.*", "[12].*"], "which match all 6"),
        (["0.wieght"], r"got '0.wieght', which matches none; names are such as 0\.weight"),
        (["conv.*"], "which matches none; names are such as "),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(patterns, message):
    with pytest.raises(InputError, match=message):
        freeze(build_net(), patterns)


def test_first_matching_group_sets_the_learning_rate():
    net = build_net()
    spec = AdamSpec(lr=1.0, groups=(GroupSpec(match="2.bias", lr=0.1), GroupSpec(match="[12].*", lr=0.2)))
    optimizer = build_optimizer(net, spec, "optimizers.g.groups")
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in net.named_parameters()} == {
        "0.weight": 1.0, "0.bias": 1.0, "1.weight": 0.2, "1.bias": 0.2, "2.weight": 0.2, "2.bias": 0.1,
    }  # fmt: skip
    assert [group["base_lr"] for group in optimizer.param_groups] == [1.0, 0.1, 0.2]


def test_a_group_without_parameters_is_refused():
    spec = AdamSpec(groups=(GroupSpec(match="0.*", lr=0.1), GroupSpec(match="0.weight", lr=0.2)))
    with pytest.raises(InputError, match=r"optimizers\.g\.groups\.1\.match: .*'0\.weight', which matches none"):
        build_optimizer(build_net(), spec, "optimizers.g.groups")


def test_frozen_and_grouped_run_resumes_bit_for_bit(quick, tmp_path):
    quick["freeze"] = ["head.*", "body.0.*"]
    quick["optimizers"]["g"]["groups"] = [{"match": "tail.*", "lr": 1e-2}]
    folder = assert_resumes(quick, tmp_path)
    first, last = read_checkpoint(folder, 0), read_checkpoint(folder)
    for name, tensor in last["nets"]["g"].items():
        frozen = name.startswith(("head.", "body.0."))
        constant = name.startswith(("sub_mean", "add_mean"))
        assert torch.equal(tensor, first["nets"]["g"][name]) == (frozen or constant), name
        if frozen:
            assert torch.equal(last["ema"][name], tensor), name
        elif not constant:
            assert not torch.equal(last["ema"][name], tensor), name
    assert len(last["optimizers"]["g"]["param_groups"]) == 2


def test_group_rate_is_the_step_that_adam_takes(quick, tmp_path):
    """Adam's first step has the size of the learning rate, where the gradient is not tiny."""
    quick |= {"steps": 1, "ema_decay": None, "schedule": {"kind": "constant"}, "clip_norm": None, "start_from": None}
    net = parse_recipe(quick, "test").network.build(2)
    save_weights(tmp_path / "start.safetensors", net, {})
    quick["start_from"] = str(tmp_path / "start.safetensors")
    quick["optimizers"]["g"] = {"kind": "adam", "lr": 1e-3, "groups": [{"match": "tail.*", "lr": 1e-5}]}
    trained = read_checkpoint(train(quick, tmp_path / "run"))["nets"]["g"]
    for name, before in net.named_parameters():
        step = (trained[name] - before).abs().max().item()
        assert step == pytest.approx(1e-5 if name.startswith("tail") else 1e-3, rel=0.02), name


def test_a_pattern_that_fits_no_layer_is_refused_before_training(quick, tmp_path):
    with pytest.raises(InputError, match=r"^freeze: .*'upsampler\.\*', which matches none; names are such as "):
        train({**quick, "freeze": ["upsampler.*"]}, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()
