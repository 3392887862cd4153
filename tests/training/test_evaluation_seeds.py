"""Runs that evaluate a network that samples with several seeds."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from factories import recipe_error
from run_folders import assert_same, read_checkpoint, read_lines, read_log, train
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import evaluate_set
from selfsr.evaluation.seeds import Sampler
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.nets.diffusion.residual_shifting import ResidualShifting, ResidualShiftingSpec
from selfsr.nets.diffusion.sampling import describe_sampling, get_sampling, keep_sampling, set_sampling
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.save import save_weights
from selfsr.recipe import parse_recipe
from selfsr.step import Clock
from selfsr.training.evaluation import Evaluator
from selfsr.upscaling.upscaler import Upscaler

CPU = torch.device("cpu")
NETWORK = {"kind": "residual_shifting", "unet": {"channels": [8, 8, 8], "groups": 4}, "shift": {"steps": 2}}
SEEDS = [0, 4, 7]


@pytest.fixture
def sampled(tiny: dict) -> dict[str, Any]:
    """Return a recipe that trains a network that samples, and evaluates it with three seeds."""
    method = {"kind": "denoising", "terms": {"pixel": {"kind": "l1", "weight": 0.1}}}
    return {**tiny, "network": NETWORK, "method": method, "evaluate": {**tiny["evaluate"], "seeds": SEEDS}}


def make_net(**options: Any) -> ResidualShifting:
    """Return a network whose outputs differ from seed to seed, unlike those of a new one."""
    torch.manual_seed(0)
    net = ResidualShiftingSpec(**{**NETWORK, **options}).build(2)
    torch.nn.init.normal_(net.unet.conv_out.weight, std=0.05)
    return net


def test_records_of_a_run_have_means_spread_and_each_seed(sampled: dict, tmp_path: Path) -> None:
    folder = train(sampled, tmp_path / "run")
    records = read_lines(folder / "eval.jsonl")
    assert [record["step"] for record in records] == [0, 3, 6]
    for record in records:
        scores = record["sets"]["test"]
        assert list(scores) == ["scale", "lr", "mean", "spread", "seeds", "images"]
        assert list(scores["seeds"]) == ["0", "4", "7"]
        of_seeds = [means["psnr_y"] for means in scores["seeds"].values()]
        assert scores["mean"]["psnr_y"] == pytest.approx(sum(of_seeds) / 3, abs=1e-9)
    assert list(records[0]["bicubic"]["test"]) == ["scale", "lr", "mean", "images"]
    # the last layer starts at zero, so that the network starts as bicubic
    assert records[0]["sets"]["test"]["mean"]["seed_spread"] == 0.0
    assert records[-1]["sets"]["test"]["mean"]["seed_spread"] > 0.0
    assert records[-1]["sets"]["test"]["spread"]["psnr_y"] > 0.0


def test_stop_and_resume_equals_straight_through(sampled: dict, tmp_path: Path) -> None:
    straight = train(sampled, tmp_path / "straight")
    stopped = tmp_path / "stopped"
    shutil.copytree(straight, stopped)
    shutil.rmtree(stopped / "checkpoints" / "step_00000006")
    train(sampled, stopped, resume=True)
    assert_same(read_checkpoint(stopped), read_checkpoint(straight))
    assert read_log(stopped) == read_log(straight)
    assert read_lines(stopped / "eval.jsonl") == read_lines(straight / "eval.jsonl")


def test_seeds_of_the_evaluation_do_not_change_the_training(sampled: dict, tmp_path: Path) -> None:
    folders = [
        train({**sampled, "evaluate": {**sampled["evaluate"], "seeds": seeds}}, tmp_path / str(len(seeds)))
        for seeds in ([4], SEEDS)
    ]
    assert_same(*({**read_checkpoint(folder), "best": None} for folder in folders))
    one, three = (read_lines(folder / "eval.jsonl")[-1]["sets"]["test"] for folder in folders)
    assert list(one) == ["scale", "lr", "mean", "images"]
    assert one["mean"] == three["seeds"]["4"]


def test_best_weights_are_those_of_the_best_mean_over_seeds(sampled: dict, tmp_path: Path) -> None:
    for metric in ("psnr_y", "psnr_y_of_mean"):
        document = {**sampled, "evaluate": {**sampled["evaluate"], "every_steps": 2, "best_by": metric}}
        folder = train(document, tmp_path / metric)
        records = [record for record in read_lines(folder / "eval.jsonl") if record["step"] > 0]
        scores = {record["step"]: record["sets"]["test"]["mean"][metric] for record in records}
        assert read_checkpoint(folder)["best"] == {metric: max(scores.values())}


@pytest.mark.parametrize("color_fix", ["wavelet", "adain", "ycbcr", "none"])
def test_a_run_and_an_upscaler_give_the_same_scores(sampled: dict, tmp_path: Path, color_fix: str) -> None:
    """LR of odd sides, so that the network pads them; before and after, the network samples in its own way."""
    sampled["evaluate"]["sets"] = {"test": str(crop_odd(Path(sampled["evaluate"]["sets"]["test"]), tmp_path / "odd"))}
    net = make_net(sample={"color_fix": color_fix})
    set_sampling(net, seed=5)
    evaluator = Evaluator(parse_recipe(sampled, "test"), tmp_path / "run", CPU)
    record = evaluator.evaluate(net, Clock(1, 1))["sets"]["test"]
    assert get_sampling(net).seed == 5
    save_weights(tmp_path / "net.safetensors", net, {})
    model = load_model(tmp_path / "net.safetensors")
    upscaler = Upscaler(model, device=CPU, precision="float32", tile="off")
    sampler = Sampler(tuple(SEEDS), lambda seed: set_sampling(model.net, seed=seed))
    scores = evaluate_set(upscaler, "test", evaluator.sets[0].hr, scale=2, device=CPU, sampler=sampler)
    assert scores.mean["seed_spread"] > 1
    assert scores.mean == pytest.approx(record["mean"], abs=1e-6)
    assert scores.spread == pytest.approx(record["spread"], abs=1e-6)


def crop_odd(source: Path, target: Path) -> Path:
    for path in sorted(source.glob("*.png")):
        write_image(target / path.name, DecodedImage(read_image(path).pixels[:46, :54].copy()))
    return target


def choose_too_many_steps(net: ResidualShifting) -> None:
    set_sampling(net, seed=3, steps=1)
    set_sampling(net, steps=3)


def test_sampling_is_kept_also_after_an_error() -> None:
    net = make_net()
    before = get_sampling(net)
    with pytest.raises(InputError), keep_sampling(net):
        choose_too_many_steps(net)
    assert get_sampling(net) == before
    with keep_sampling(torch.nn.Identity()):
        pass


def test_results_list_how_the_network_samples() -> None:
    net = make_net(sample={"deterministic": True})
    assert describe_sampling(net) == {"steps": 2, "deterministic": True, "color_fix": "wavelet"}
    set_sampling(net, steps=1, color_fix="none")
    assert describe_sampling(net) == {"steps": 1, "deterministic": True, "color_fix": "none"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [0, 1, 0]}, "evaluate.seeds: must name each seed once, got [0, 1, 0]; remove the second one"),
        ({"seeds": []}, "evaluate.seeds: "),
        ({"seeds": [-1]}, "evaluate.seeds.0: "),
        ({"seeds": ["a"]}, "evaluate.seeds.0: "),
        (
            {"seeds": [1], "best_by": "psnr_y_of_mean"},
            "seeds must be at least two for best_by psnr_y_of_mean, which is computed over them, got [1]; add one",
        ),
    ],
)
def test_wrong_seeds_are_refused(sampled: dict, change: dict, message: str) -> None:
    sampled["evaluate"].update(change)
    error = recipe_error(sampled)
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize("seeds", [[0, 1], [3]])
def test_seeds_are_refused_for_a_network_that_does_not_sample(tiny: dict, seeds: list[int]) -> None:
    tiny["evaluate"]["seeds"] = seeds
    assert recipe_error(tiny) == (
        "my.yaml: recipe: evaluate.seeds must be [0] for network edsr, which has one output for each input, "
        f"got {seeds}; leave it out."
    )
    tiny["evaluate"]["seeds"] = [0]
    assert parse_recipe(tiny, "test").evaluate.seeds == (0,)
