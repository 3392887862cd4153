"""The one-step student: its losses by their definition, resuming, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from factories import make_batch, recipe_error
from run_folders import assert_resumes, train
from sampled_nets import TINY, make_net
from selfsr.errors import InputError
from selfsr.methods import MethodSetup
from selfsr.methods.shift_distillation import ShiftDistillation, ShiftDistillationSpec
from selfsr.nets.diffusion.noise import draw_training_noise
from selfsr.nets.diffusion.sampling import set_sampling
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import load_model, save_weights
from selfsr.recipe import parse_recipe
from selfsr.step import Clock
from selfsr.training.assemble import assemble

CLOCK, SEED = Clock(3, 10, 20), 5


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    save_weights(tmp_path / "teacher.safetensors", make_net(), {})
    return tmp_path / "teacher.safetensors"


def build(teacher: Path, **options: Any) -> ShiftDistillation:
    setup = MethodSetup(
        make_net(one_step=True), torch.device("cpu"), channels=3, crop_px=32, ema_forward=None, seed=SEED
    )
    return ShiftDistillationSpec(teacher=teacher, **options).build(setup)


def test_the_losses_are_those_of_the_paper(teacher: Path) -> None:
    method, batch = build(teacher), make_batch(2)
    (update,) = method.updates(batch, CLOCK)
    net, schedule = make_net(), make_net().schedule
    x0, y = 2 * batch.hr - 1, net.condition(batch.lr)
    x_end = y + schedule.noise_std[-1] * draw_training_noise(SEED, CLOCK.step, 0, y.shape, torch.device("cpu"))
    x_end = x_end.float()

    def predict(x: torch.Tensor, i: int) -> torch.Tensor:
        return net(y, x.float(), torch.full((2,), i))

    x = x_end
    for i in (3, 2, 1, 0):
        k, m, j = schedule.deterministic(i, i - 1)
        x = k * predict(x, i) + m * x + j * y
    own_noise = predict(x0, 0)
    expected = {
        "distillation": (predict(x_end, 3) - x).square().mean(),
        "inversion": (predict(x, 0) - x_end).square().mean(),
        "truth": (predict(own_noise, 3) - x0).square().mean(),
    }
    assert set(update.losses) == set(expected)
    for name, value in expected.items():
        loss = update.losses[name]
        assert isinstance(loss, torch.Tensor)
        assert loss.item() == pytest.approx(value.item(), rel=1e-4), name


def test_without_inversion_the_teacher_alone_is_learned(teacher: Path) -> None:
    (update,) = build(teacher, inversion_weight=0).updates(make_batch(2), CLOCK)
    assert set(update.losses) == {"distillation"}


@pytest.fixture
def document(tiny: dict, teacher: Path) -> dict[str, Any]:
    terms = {"similarity": {"kind": "self_similarity", "search_px": 9, "window_px": 5, "weight": 10.0}}
    method = {"kind": "shift_distillation", "teacher": str(teacher), "terms": terms}
    return {**tiny, "network": {**TINY, "one_step": True}, "method": method, "evaluate": None}


def test_a_student_starts_as_its_teacher_resumes_and_samples_in_one_pass(document: dict, tmp_path: Path) -> None:
    straight = assert_resumes(document, tmp_path)
    model, calls = load_model(straight / "weights" / "last.safetensors"), []
    model.net.unet.register_forward_hook(lambda *_: calls.append(1))
    model.upscale(torch.rand(1, 3, 8, 8))
    assert len(calls) == 1


def test_a_student_of_zero_steps_is_its_teacher_at_the_last_step(teacher: Path, document: dict, tmp_path: Path) -> None:
    run = assemble(parse_recipe(document, "test"), tmp_path / "run", device="cpu", resume=False)
    run.loader.close()
    teacher_net, lr = load_model(teacher).net, torch.rand(1, 3, 8, 8)
    set_sampling(teacher_net, steps=1)
    assert torch.equal(run.generator.eval()(lr), teacher_net(lr))


def test_another_teacher_in_a_resumed_run_is_refused(document: dict, teacher: Path, tmp_path: Path) -> None:
    run = train({**document, "steps": 3}, tmp_path / "run")
    net = make_net()
    with torch.no_grad():
        next(iter(net.parameters())).add_(1)
    save_weights(teacher, net, {})
    with pytest.raises(InputError, match=r"method.teacher: expected the teacher with which the run began"):
        train(document, run, resume=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (TINY, "network.one_step must be true for method shift_distillation, got false; set it"),
        (
            {**TINY, "one_step": True, "shift": {"steps": 1}},
            "network.shift.steps must be 2 or more for inversion_weight, got 1",
        ),
    ],
)
def test_a_network_that_is_no_student_is_refused(document: dict, network: dict, message: str) -> None:
    assert message in recipe_error({**document, "network": network})


def test_a_teacher_of_another_schedule_is_refused(document: dict, tmp_path: Path) -> None:
    document["network"] = {**document["network"], "shift": {"steps": 4, "kappa": 2.0}}
    with pytest.raises(InputError, match="expected that of the teacher"):
        train(document, tmp_path / "run")


def test_a_teacher_of_another_kind_is_refused(document: dict, tmp_path: Path) -> None:
    save_weights(tmp_path / "edsr.safetensors", EdsrSpec(features=8, blocks=1).build(2), {})
    document["method"]["teacher"] = str(tmp_path / "edsr.safetensors")
    with pytest.raises(InputError, match=r"0 of \d+ tensors fit the network"):
        train(document, tmp_path / "run")
