"""Every optimizer and schedule of the unions trains, resumes exactly, and is evaluated and saved as it should be.

A new kind adds its smallest options to OPTIMIZERS or SCHEDULES.
"""

import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from factories import make_generator, recipe_error
from programs import run_python
from run_folders import assert_resumes, assert_same, read_checkpoint, read_lines, train
from selfsr.errors import InputError
from selfsr.nets.weights.read import read_weights
from selfsr.recipe import parse_recipe
from selfsr.recipe.optim import ImportedSpec, MuonSpec, Optimizer, ProdigySpec, ScheduleFreeAdamWSpec
from selfsr.recipe.schedules import Schedule
from selfsr.training.assemble import assemble
from selfsr.training.optimizers import averaged_weights, check_exact_resume

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {},
    "adamw": {},
    "adan": {},
    "adamw_schedule_free": {},
    "prodigy": {},
    "soap": {"precondition_frequency": 1},
    "muon": {},
    "lion": {},
    "import": {"path": "torch.optim.NAdam", "lr": 1e-3, "options": {"momentum_decay": 0.01}},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "multistep": {"at_steps": [2]},
    "cosine": {},
    "cosine_restarts": {"period_steps": 2},
    "wsd": {"decay_share": 0.5},
    "plateau": {"patience": 1},
}


def list_kinds(union: Any) -> list[str]:
    return [get_args(spec.model_fields["kind"].annotation)[0] for spec in get_args(get_args(union)[0])]


@pytest.fixture
def quick(tiny: dict) -> dict[str, Any]:
    """Return a recipe of four steps with a checkpoint after each, without evaluation."""
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    return {**tiny, "steps": 4, "evaluate": None, "ema_decay": None, "checkpoints": {"every_steps": 1, "keep_last": 4}}


def with_optimizer(document: dict, kind: str) -> dict[str, Any]:
    options = {"kind": kind, **OPTIMIZERS[kind]}
    return {**document, "optimizers": {"g": options}, "schedule": {"kind": "constant"}}


def test_every_optimizer_and_schedule_has_options_in_this_file() -> None:
    assert set(OPTIMIZERS) == set(list_kinds(Optimizer))
    assert set(SCHEDULES) == set(list_kinds(Schedule))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_two_steps_move_every_weight_and_a_resumed_run_is_the_same(kind: str, quick: dict, tmp_path: Path) -> None:
    document = with_optimizer(quick, kind)
    initial = assemble(parse_recipe(document, "test"), tmp_path / "initial", device="cpu", resume=False)
    initial.loader.close()
    folder = assert_resumes(document, tmp_path)
    moved = read_checkpoint(folder, 1)["nets"]["g"]
    assert [name for name, value in initial.generator.named_parameters() if torch.equal(moved[name], value)] == []


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_run_with_each_schedule_resumes_and_logs_its_rate(
    kind: str, quick: dict, photos: Path, tmp_path: Path
) -> None:
    document = {**quick, "schedule": {"kind": kind, "warmup_steps": 1, **SCHEDULES[kind]}}
    if kind == "plateau":
        document["evaluate"] = {"every_steps": 1, "sets": {"test": str(photos / "test")}, "samples": 0}
    folder = assert_resumes(document, tmp_path)
    rates = [record["lr"]["g"] for record in read_lines(folder / "metrics.jsonl")]
    schedule = parse_recipe(document, "test").schedule
    if kind != "plateau":
        assert rates == pytest.approx([1e-3 * schedule.factor(step, 4) for step in range(1, 5)])


def test_a_plateau_lowers_the_rate_and_remembers_it(quick: dict, photos: Path, tmp_path: Path) -> None:
    """A high rate makes the scores fall, so that the rate drops after each evaluation."""
    document = {**quick, "schedule": {"kind": "plateau", "patience": 1, "gamma": 0.5}, "clip_norm": None}
    document["optimizers"] = {"g": {"kind": "adam", "lr": 0.05}}
    document["evaluate"] = {"every_steps": 1, "sets": {"test": str(photos / "test")}, "samples": 0}
    folder = assert_resumes(document, tmp_path)
    rates = [record["lr"]["g"] for record in read_lines(folder / "metrics.jsonl")]
    scores = [record["sets"]["test"]["mean"]["psnr_y"] for record in read_lines(folder / "eval.jsonl")][1:]
    best, factor, wanted = float("-inf"), 1.0, []
    for score in scores:
        wanted.append(0.05 * factor)
        factor, best = (factor, score) if score > best else (factor / 2, best)
    assert rates == wanted
    assert factor < 1
    assert read_checkpoint(folder)["plateau"]["factor"] == factor


def test_schedule_free_is_evaluated_and_saved_with_its_average(quick: dict, photos: Path, tmp_path: Path) -> None:
    """The average x by its definition: x = y + (z - y) (1 - 1 / beta), with the weights y of training."""
    document = with_optimizer(quick, "adamw_schedule_free")
    folder = train(document, tmp_path / "run")
    state = read_checkpoint(folder)
    z = [entry["z"] for _, entry in sorted(state["optimizers"]["g"]["state"].items())]
    saved = read_weights(folder / "weights" / "last.safetensors").tensors
    names = [name for name, _ in parse_recipe(document, "test").network.build(2).named_parameters()]
    for name, of_z in zip(names, z, strict=True):
        y = state["nets"]["g"][name]
        torch.testing.assert_close(saved[name], y + (of_z - y) * (1 - 1 / 0.9))
        assert not torch.equal(saved[name], y)
    assert state["optimizers"]["g"]["param_groups"][0]["train_mode"]
    # Evaluation and saving leave the training as it is, bit for bit.
    document["evaluate"] = {"every_steps": 1, "sets": {"test": str(photos / "test")}, "samples": 0}
    evaluated = train(document, tmp_path / "evaluated")
    assert_same(read_checkpoint(evaluated)["nets"], state["nets"])


def test_a_schedule_free_discriminator_is_saved_with_its_average(quick: dict, tmp_path: Path) -> None:
    discriminator = {"network": {"kind": "patch", "features": 4, "layers": 1}, "weight": 0.1}
    document = {**quick, "schedule": {"kind": "constant"}, "ema_decay": 0.9}
    document["method"] = {"kind": "gan", "terms": {"pixel": {"kind": "l1"}}, "discriminators": {"d": discriminator}}
    document["optimizers"] = {"g": {"kind": "adam"}, "d": {"kind": "adamw_schedule_free"}}
    folder = assert_resumes(document, tmp_path)
    trained, saved = read_checkpoint(folder)["nets"]["d"], read_weights(folder / "discriminators/d.safetensors").tensors
    assert any(not torch.equal(saved[name], trained[name]) for name in saved)


def test_averaged_weights_are_restored_exactly() -> None:
    net = make_generator()
    optimizer = ScheduleFreeAdamWSpec().build([{"params": list(net.parameters()), "lr": 1e-2}])
    net(torch.rand(1, 3, 8, 8)).mean().backward()
    optimizer.step()
    optimizer.step()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    with averaged_weights(optimizer):
        inside = [parameter.detach().clone() for parameter in net.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, inside, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_an_average_and_a_falling_rate_are_refused_with_schedule_free(quick: dict, tmp_path: Path) -> None:
    document = with_optimizer(quick, "adamw_schedule_free")
    for change, message in (
        ({"ema_decay": 0.9}, "^ema_decay: expected null with optimizers.g.kind adamw_schedule_free, which averages"),
        ({"schedule": {"kind": "cosine"}}, "^schedule.kind: expected constant with optimizers.g.kind adamw_schedule"),
    ):
        with pytest.raises(InputError, match=message):
            train({**document, **change}, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_muon_trains_matrices_and_adamw_vectors_at_the_same_rate() -> None:
    net = make_generator()
    optimizer = MuonSpec().build([{"params": list(net.parameters()), "lr": 0.1}])
    shapes = [[parameter.ndim for parameter in group["params"]] for group in optimizer.param_groups]
    assert shapes == [[4, 4], [1, 1]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    linear = nn.Linear(3, 3, bias=False)
    assert len(MuonSpec().build([{"params": list(linear.parameters()), "lr": 0.1}]).param_groups) == 1


def test_a_missing_package_is_one_sentence_before_the_first_step(
    quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(InputError) as error:
        train(with_optimizer(quick, "adan"), tmp_path / "run")
    assert str(error.value) == (
        "optimizers: kind adan needs pytorch-optimizer, got an environment without it; install it with "
        'pip install "selfsr[optimizers]", or choose adam or adamw.'
    )
    assert not (tmp_path / "run" / "recipe.yaml").exists()


class Forgetful(torch.optim.SGD):
    """An optimizer with a state that is not in its state dict."""

    def step(self, closure=None):
        self.steps = getattr(self, "steps", 0) + 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.steps
        return super().step(closure)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (
            "no_such_package.Adam",
            {},
            "path must be a class that can be imported, got 'no_such_package.Adam' (No module",
        ),
        ("Adam", {}, "path must be a class that can be imported, got 'Adam'"),
        ("torch.nn.Conv2d", {}, "path must be a subclass of torch.optim.Optimizer, got 'torch.nn.Conv2d', which is"),
        (
            "torch.optim.NAdam",
            {"beta": 1},
            "torch.optim.NAdam must accept its options, got {'beta': 1}, which it refus",
        ),
        ("torch.optim.LBFGS", {}, "torch.optim.LBFGS must take steps without a closure and resume from plain values"),
        ("test_optimizers.Forgetful", {}, "must continue exactly from a checkpoint, got other weights after a resume"),
    ],
)
def test_an_imported_class_that_does_not_fit_is_one_sentence(
    path: str, options: dict, message: str, quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "test_optimizers", sys.modules[__name__])
    document = {**quick, "optimizers": {"g": {"kind": "import", "path": path, "lr": 0.1, "options": options}}}
    with pytest.raises(InputError) as error:
        train(document, tmp_path / "run")
    assert str(error.value).startswith("optimizers: ")
    assert message in str(error.value)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "RAdam", "Adafactor"])
def test_optimizers_of_torch_can_be_imported(name: str) -> None:
    state = torch.random.get_rng_state()
    check_exact_resume(ImportedSpec(path=f"torch.optim.{name}", lr=0.1))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_prodigy_has_no_groups_and_a_plateau_needs_scores(quick: dict) -> None:
    quick["optimizers"] = {"g": {"kind": "prodigy", "groups": []}}
    assert "optimizers.g.groups: unknown key" in recipe_error(quick)
    assert "groups" not in ProdigySpec.model_fields
    quick["optimizers"] = {"g": {"kind": "prodigy", "lr": 1e-4}}  # the rate of another optimizer
    assert "optimizers.g.lr: expected a number greater than or equal to 0.1, got 0.0001" in recipe_error(quick)
    for key in ("lr", "eps", "weight_decay"):  # beyond float32, PyTorch ends with an error of its own
        large = {**quick, "optimizers": {"g": {"kind": "adamw", key: 1e38}}}
        assert f"optimizers.g.{key}: expected a number less than or equal to 1000, got 1e+38" in recipe_error(large)
    quick["optimizers"] = {"g": {"kind": "adam"}}
    quick["schedule"] = {"kind": "plateau"}
    assert "evaluate must be set for schedule.kind plateau" in recipe_error(quick)


def test_only_those_who_use_it_import_pytorch_optimizer() -> None:
    code = (
        "import sys, torch\n"
        "from selfsr.recipe.optim import AdamWSpec, LionSpec\n"
        "import selfsr.training.loop\n"
        "groups = [{'params': [torch.nn.Parameter(torch.zeros(2, 2))], 'lr': 0.1}]\n"
        "AdamWSpec().build(groups)\n"
        "assert 'pytorch_optimizer' not in sys.modules\n"
        "LionSpec().build(groups)\n"
        "assert 'pytorch_optimizer' in sys.modules\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
