"""`selfsr finetune` as a user runs it, with a tiny network and photos."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from selfsr import cli
from selfsr.errors import InputError
from selfsr.finetune.plan import Request, plan_finetune
from selfsr.images.paths import list_images
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights.save import save_weights
from selfsr.recipe import load_recipe
from selfsr.training.dryrun import Cost
from selfsr.training.run_evaluation import DryRunEvaluation


def run_cli(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (96, 104, 3), np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "2x small.safetensors"
    save_weights(path, EdsrSpec(features=8, blocks=1).build(scale=2), {})
    return path


def test_one_line_gives_a_run_a_picture_and_a_file(tmp_path, photos, model):
    runs = tmp_path / "runs"
    result = run_cli("finetune", str(model), str(photos), "--steps", "10", "--runs", str(runs), "--device", "cpu")
    assert result.exit_code == 0, result.output
    folder = runs / "2x_small_finetuned"
    recipe = load_recipe(folder / "recipe.yaml")
    assert (recipe.network.kind, recipe.scale, recipe.steps, recipe.crop_px) == ("edsr", 2, 10, 96)
    assert not set(list_images(folder / "train.txt")) & set(list_images(folder / "held_out.txt"))
    steps = [json.loads(line)["step"] for line in (folder / "eval.jsonl").read_text().splitlines()]
    assert (steps[0], steps[-1]) == (0, 10)
    assert (folder / "weights" / "best.safetensors").is_file()
    with Image.open(folder / "before_after.png") as image:
        assert image.size[0] == 4 * 160 + 3 * 4
    assert "start" in result.output
    again = run_cli("finetune", str(model), str(photos), "--steps", "10", "--runs", str(runs))
    assert isinstance(again.exception, InputError)
    assert "--resume" in str(again.exception)


def _cost(steps_per_s):
    return Cost(steps_per_s, 1.0, 0.0, 0.0, DryRunEvaluation(2))


def _plan(monkeypatch, tmp_path, photos, model, steps_per_s, seconds, **options):
    monkeypatch.setattr("selfsr.finetune.plan.measure_cost", lambda recipe, device: _cost(steps_per_s))
    times = iter((0.0, 50.0))  # planning takes 50 s
    monkeypatch.setattr("selfsr.finetune.plan.perf_counter", lambda: next(times))
    return plan_finetune(Request(str(model), photos, tmp_path / "runs/x", seconds=seconds, device="cpu", **options))


def test_the_steps_fill_nine_tenths_of_the_time_without_planning_and_evaluations(monkeypatch, tmp_path, photos, model):
    recipe = _plan(monkeypatch, tmp_path, photos, model, steps_per_s=2.0, seconds=1000).recipe
    assert recipe.steps == (900 - 50 - 7) * 2
    assert recipe.batch == 16


def test_a_slow_run_takes_smaller_batches(monkeypatch, tmp_path, photos, model):
    recipe = _plan(monkeypatch, tmp_path, photos, model, steps_per_s=0.1, seconds=1000).recipe
    assert (recipe.batch, recipe.steps) == (4, int((900 - 50 - 7) * 0.4))


def test_too_short_a_time_is_one_sentence(monkeypatch, tmp_path, photos, model):
    with pytest.raises(InputError, match=r"--for: expected at least .*m here, for 10 steps"):
        _plan(monkeypatch, tmp_path, photos, model, steps_per_s=0.001, seconds=10)


def test_a_gan_has_a_discriminator_and_the_self_similarity_loss(monkeypatch, tmp_path, photos, model):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    plan = _plan(monkeypatch, tmp_path, photos, model, steps_per_s=2.0, seconds=1000, gan=True)
    assert set(plan.recipe.method.terms) == {"pixel", "similarity"}
    assert set(plan.recipe.optimizers) == {"g", "d"}
    assert plan.recipe.evaluate.best_by == "self_similarity"
    assert any("Without a perceptual loss" in note for note in plan.notes)


def test_a_degraded_run_is_evaluated_as_trained(monkeypatch, tmp_path, photos, model):
    recipe = _plan(monkeypatch, tmp_path, photos, model, steps_per_s=2.0, seconds=1000, degrade="real_esrgan").recipe
    assert recipe.data.degrade is not None
    assert recipe.evaluate.sets["held_out"].degrade is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--for", "soon"], "expected a duration such as 30m"),
        (["--for", "1m", "--steps", "20"], "either --for or --steps"),
        (["--scale", "3", "--steps", "20"], "--scale: expected the scale of"),
        (["--degrade", "real_esrgen", "--steps", "20"], "real_esrgan"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, photos, model, arguments, message):
    result = run_cli("finetune", str(model), str(photos), *arguments, "--runs", str(tmp_path / "runs"))
    assert isinstance(result.exception, InputError), result.output
    assert message in str(result.exception)


def test_a_degraded_run_starts(tmp_path, photos, model):
    """The evaluation degrades the images of a list; their names are below the folder that they share."""
    arguments = ["--steps", "10", "--degrade", "real_esrgan", "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    result = run_cli("finetune", str(model), str(photos), *arguments, "--name", "degraded")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs/degraded/weights/last.safetensors").is_file()


def test_few_steps_are_noted(monkeypatch, tmp_path, photos, model):
    plan = _plan(monkeypatch, tmp_path, photos, model, steps_per_s=0.002, seconds=1000)
    assert plan.recipe.batch == 1
    assert f"Only {plan.recipe.steps} steps fit into the time" in " ".join(plan.notes)
