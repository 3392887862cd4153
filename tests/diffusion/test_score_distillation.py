"""Score distillation on tiny random bases: its gradient, what it asks the base, and what it trains, saves and refuses.

As a program, this file is one of two processes.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, distributed

from factories import make_batch, recipe_error
from run_folders import leaves, read_checkpoint, read_log, train
from selfsr.errors import InputError
from selfsr.methods import MethodSetup
from selfsr.methods.score_distillation import FAKE, ScoreDistillation, ScoreDistillationSpec, score_distillation_loss
from selfsr.nets.diffusion.noise import draw_training_noise, draw_training_steps
from selfsr.nets.diffusion.one_step import OneStepSpec
from selfsr.nets.diffusion.prompt import Prompt
from selfsr.recipe import parse_recipe
from selfsr.step import GENERATOR, Batch, Clock, Update
from selfsr.training.loop import losses_to_backward
from tiny_bases import FEATURES
from two_processes import run_in_two_processes

CPU, CLOCK, SEED = torch.device("cpu"), Clock(3, 10, 20), 5
CSD: dict[str, Any] = {"kind": "csd"}
VSD: dict[str, Any] = {"kind": "vsd", "fake_lora": {"rank": 2}}
PIXEL: dict[str, Any] = {"pixel": {"kind": "l2"}}


def save_prompt(path: Path, *, equal: bool = False, negative: bool = True) -> Path:
    """Save random embeddings for the tiny U-Net and the tiny transformer."""
    random = torch.Generator().manual_seed(1)
    positive, other = torch.randn(2, 5, FEATURES, generator=random)
    Prompt(positive, (positive.clone() if equal else other) if negative else None).save(path)
    return path


@pytest.fixture(scope="session")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_prompt(tmp_path_factory.mktemp("prompt") / "prompt.safetensors")


def build(
    base: Path, prompt: Path, distillation: dict[str, Any], terms: dict[str, Any] | None = None, **network: Any
) -> ScoreDistillation:
    torch.manual_seed(0)
    options = {"base_precision": "float32", "lora": {"rank": 2}, "timestep": 200, **network}
    net = OneStepSpec(base=base, prompt_file=prompt, **options).build(2).train()
    spec = ScoreDistillationSpec(kind="score_distillation", terms=terms or PIXEL, distillation=distillation)  # pyright: ignore[reportArgumentType]
    setup = MethodSetup(net, CPU, channels=3, crop_px=16, ema_forward=None, seed=SEED)
    return spec.build(setup)


def randomize(net: torch.nn.Module, seed: int) -> None:
    """Give the adapters of a network other values."""
    random = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)


def test_golden_gradient() -> None:
    z = torch.ones(1, 4, 2, 2, requires_grad=True)
    gradient = torch.arange(16.0).reshape(1, 4, 2, 2)
    score_distillation_loss(z, torch.zeros_like(z), gradient).backward()  # mean |z - real| is 1
    assert z.grad is not None
    assert torch.equal(z.grad, gradient / 8)


def test_gradient_and_value_by_definition() -> None:
    rng = np.random.default_rng(2)
    z, real, fake = rng.normal(size=(3, 2, 4, 3, 5)) * np.array([1, 2, 3]).reshape(3, 1, 1, 1, 1)
    step = np.stack([(f - r) / np.abs(x - r).mean() for x, r, f in zip(z, real, fake, strict=True)])
    latents = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    loss = score_distillation_loss(latents, torch.tensor(real), torch.tensor(fake))
    loss.backward()
    assert loss.item() == pytest.approx((step**2).mean(), rel=1e-5)
    torch.testing.assert_close(latents.grad, torch.tensor(2 * step / step.size, dtype=torch.float32))


def test_latents_of_the_base_get_a_finite_gradient() -> None:
    z = torch.ones(1, 4, 2, 2, requires_grad=True)
    score_distillation_loss(z, z.detach(), z.detach()).backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.zeros_like(z))


def predict(base: Path, noisy: Tensor, index: Tensor, embedding: Tensor) -> Tensor:
    """Return x0 by diffusers' U-Net and float64 tables."""
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    with torch.no_grad():
        noise = unet(noisy, index, embedding.expand(len(noisy), *embedding.shape)).sample.double()
    abar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    share = torch.tensor(abar)[index].reshape(-1, 1, 1, 1)
    return (noisy - (1 - share).sqrt() * noise) / share.sqrt()


@pytest.mark.parametrize("options", [CSD, VSD], ids=["csd", "vsd"])
def test_loss_asks_the_base_as_stated(options: dict, base: Path, prompt: Path) -> None:
    """With guidance in x0, which is linear in the noise; untrained fake adapters are the base with the prompt."""
    method, batch = build(base, prompt, {**options, "guidance": 3.0, "weight": 2.0}), make_batch(2, side_px=16)
    randomize(method.net, 8)
    update = next(iter(method.updates(batch, CLOCK)))
    with torch.no_grad():
        latents = method.net(batch.lr, return_latents=True)
    first, end = {"csd": (20, 500), "vsd": (20, 980)}[options["kind"]]
    index = first + draw_training_steps(SEED, CLOCK.step, 0, 2, end - first)
    noise = draw_training_noise(SEED, CLOCK.step, 0, latents.shape, CPU)
    noisy = method.net.schedule.add_noise(latents, noise, index)
    embeddings = method.net.get_prompt()
    assert embeddings.negative is not None
    positive, negative = (predict(base, noisy, index, text) for text in (embeddings.embedding, embeddings.negative))
    real, fake = negative + 3 * (positive - negative), {"csd": negative, "vsd": positive}[options["kind"]]
    distance = (latents - real).abs().mean(dim=(1, 2, 3), keepdim=True)
    expected = 2 * ((fake - real) / distance).square().mean()
    loss = update.losses["distillation"]
    assert isinstance(loss, Tensor)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert set(update.losses) == {"pixel", "distillation"}


def gradient_at_latents(method: ScoreDistillation, loss_name: str = "distillation") -> Tensor:
    batch = make_batch(2, side_px=16)
    seen: list[Tensor] = []
    method.net.register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    loss = next(iter(method.updates(batch, CLOCK))).losses[loss_name]
    assert isinstance(loss, Tensor)
    (gradient,) = torch.autograd.grad(loss, seen[0])
    return gradient


def test_nothing_is_distilled_between_equal_predictions(base: Path, prompt: Path, tmp_path: Path) -> None:
    assert not gradient_at_latents(build(base, prompt, {**VSD, "guidance": 1.0})).any()
    same = save_prompt(tmp_path / "same.safetensors", equal=True)
    assert not gradient_at_latents(build(base, same, {**CSD, "guidance": 1.0})).any()
    trained = build(base, prompt, {**VSD, "guidance": 1.0})
    assert trained.fake is not None
    randomize(trained.fake, 4)
    assert gradient_at_latents(trained).any()


def test_weights_are_matched_at_the_latents(base: Path, prompt: Path) -> None:
    terms = {"pixel": {"kind": "l2", "weight": {"match": "largest", "calibrate_steps": 1}}}
    method = build(base, prompt, CSD, terms)
    plain = build(base, prompt, CSD)
    norms = {name: gradient_at_latents(plain, name).norm().item() for name in ("distillation", "pixel")}
    for _ in method.updates(make_batch(2, side_px=16), CLOCK):
        pass
    matched = method.objective.loss_weights.matched["pixel"].item()
    assert matched == pytest.approx(norms["distillation"] / norms["pixel"], rel=1e-4)


def test_frozen_weights_exist_once(base: Path, prompt: Path) -> None:
    method = build(base, prompt, VSD, encoder_lora={"rank": 1})
    ours, fake = dict(method.net.unet.named_parameters()), method.fake
    assert fake is not None
    shared = fake.frozen_names()
    for name, parameter in fake.named_parameters():
        assert (parameter is ours[name.removeprefix("unet.")]) == (name in shared), name
    assert {name for name, _ in fake.named_parameters()} - shared == set(fake.state_dict()) - {"base_sha256"}
    assert all(".lora_" in name for name in set(fake.state_dict()) - {"base_sha256"})
    assert not any(module.training for module in fake.train().unet.modules())
    assert fake.unet.is_gradient_checkpointing
    before = build(base, prompt, VSD).fake
    assert before is not None
    randomize(fake, 4)
    before.load_state_dict(fake.state_dict())
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, fake.state_dict()[name])


def take_steps(method: ScoreDistillation, count: int) -> Iterator[Update]:
    """Take the updates of some steps with AdamW; yield each before its optimizer step."""
    optimizers = {
        name: torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
        for name, net in method.nets.items()
    }
    for step in range(1, count + 1):
        for update in method.updates(make_batch(2, side_px=16, seed=step), Clock(step, 1, 9)):
            torch.stack(list(losses_to_backward(update, {}, 1, 1).values())).sum().backward()
            yield update
            optimizers[update.net].step()
            optimizers[update.net].zero_grad()


def test_each_update_trains_its_adapters_only(base: Path, prompt: Path) -> None:
    method = build(base, prompt, VSD)
    before = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in method.nets.items()}
    names = []
    for update in take_steps(method, 3):
        names.append(update.net)
        for name, net in method.nets.items():
            with_gradient = {key for key, parameter in net.named_parameters() if parameter.grad is not None}
            trained = {key for key, parameter in net.named_parameters() if parameter.requires_grad}
            assert with_gradient == (trained if name == update.net else set())
    assert names == 3 * [GENERATOR, FAKE]
    for name, net in method.nets.items():
        frozen = net.frozen_names()  # pyright: ignore[reportCallIssue]
        for key, parameter in net.named_parameters():
            assert torch.equal(parameter, before[name][key]) == (key in frozen), (name, key)


def test_fake_denoiser_learns_the_outputs(base: Path, prompt: Path) -> None:
    method, batch = build(base, prompt, VSD), make_batch(2, side_px=16)
    (update,) = (update for update in method.updates(batch, CLOCK) if update.net == FAKE)
    with torch.no_grad():
        latents = method.net(batch.lr, return_latents=True)
        index = draw_training_steps(SEED, CLOCK.step, 0, 2, 1000, stream=1)
        noise = draw_training_noise(SEED, CLOCK.step, 0, latents.shape, CPU, stream=1)
        predicted = method.nets[FAKE](method.net.schedule.add_noise(latents, noise, index), index)
    assert not torch.equal(index, draw_training_steps(SEED, CLOCK.step, 0, 2, 1000))
    loss = update.losses["denoising"]
    assert isinstance(loss, Tensor)
    assert loss.item() == pytest.approx((predicted - noise).square().mean().item(), rel=1e-5)


def test_draws_do_not_depend_on_the_split(base: Path, prompt: Path) -> None:
    method, batch = build(base, prompt, VSD), make_batch(2, side_px=16)
    method.net.eval()  # equal outputs, without a gradient

    def losses(part: Batch) -> list[Tensor]:
        return [torch.as_tensor(value) for u in method.updates(part, CLOCK) for value in u.losses.values()]

    halves = [losses(Batch(batch.hr[i : i + 1], batch.lr[i : i + 1], first_slot=i)) for i in (0, 1)]
    for complete, first, second in zip(losses(batch), *halves, strict=True):
        torch.testing.assert_close(complete, (first + second) / 2, rtol=1e-4, atol=1e-6)


def test_flow_of_a_transformer_is_distilled(flow_base: Path, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(1)
    texts, pooled = torch.randn(2, 5, FEATURES, generator=random), torch.randn(2, 12, generator=random)
    Prompt(texts[0], texts[1], pooled[0], pooled[1]).save(tmp_path / "prompt.safetensors")
    options = {**VSD, "fake_lora": {"rank": 1, "targets": ["attention"]}}
    method = build(flow_base, tmp_path / "prompt.safetensors", options, timestep=999, lora={"targets": ["attention"]})
    noisy, index = torch.randn(1, 4, 8, 8, generator=random), torch.tensor([499])
    with torch.no_grad():
        real, fake = method.predict_x0(noisy, index)
        velocity = [
            method.net.base.denoiser(
                noisy,
                encoder_hidden_states=texts[i : i + 1],
                pooled_projections=pooled[i : i + 1],
                timestep=torch.tensor([500.0]),
                return_dict=False,
            )[0]
            for i in (0, 1)
        ]
    guided = velocity[1] + 7.5 * (velocity[0] - velocity[1])
    torch.testing.assert_close(real, noisy - 0.5 * guided, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fake, noisy - 0.5 * velocity[0], rtol=1e-4, atol=1e-4)
    assert [update.net for update in take_steps(method, 1)] == [GENERATOR, FAKE]


@pytest.fixture
def document(tiny: dict, base: Path, prompt: Path) -> dict[str, Any]:
    """Return a recipe of two steps by vsd."""
    network = {"kind": "one_step", "base": str(base), "prompt_file": str(prompt), "timestep": 200}
    adapters = {"rank": 2, "targets": ["attention"]}
    return {
        **tiny,
        "steps": 2,
        "batch": 2,
        "crop_px": 16,
        "network": {**network, "base_precision": "float32", "lora": adapters},
        "method": {"kind": "score_distillation", "terms": PIXEL, "distillation": {**VSD, "fake_lora": adapters}},
        "optimizers": {name: {"kind": "adam", "lr": 1e-3, "eps": 1e-3} for name in ("g", "fake")},
        "evaluate": None,
    }


def assert_equal_runs(one: Path, other: Path) -> None:
    for record, expected in zip(read_log(other), read_log(one), strict=True):
        assert leaves(record["loss"]) == pytest.approx(leaves(expected["loss"]), rel=1e-3)
    nets = [leaves(read_checkpoint(run)["nets"]) for run in (one, other)]
    for name, tensor in nets[0].items():
        torch.testing.assert_close(nets[1][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_micro_batches_equal_one_batch(document: dict, tmp_path: Path) -> None:
    runs = [train({**document, "accumulate": count}, tmp_path / str(count)) for count in (1, 2)]
    assert_equal_runs(*runs)
    assert not (runs[0] / "discriminators").exists()


@pytest.mark.slow
def test_two_processes_equal_one(document: dict, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    run_in_two_processes(Path(__file__).resolve(), tmp_path, cwd=tmp_path)
    assert_equal_runs(train(document, tmp_path / "one"), tmp_path / "two")


def change(document: dict, **sections: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with some keys of its sections replaced; None removes one."""
    result = dict(document)
    for name, options in sections.items():
        merged = {**result[name], **options}
        result[name] = {key: value for key, value in merged.items() if value is not None}
    return result


def test_bad_options_are_one_sentence(document: dict, tmp_path: Path) -> None:
    def distill(**options: Any) -> dict[str, Any]:
        return change(document, method={"distillation": options})

    no_prompt = change(document, network={"prompt_file": None})
    sampled = {"kind": "residual_shifting", "unet": {"channels": [8], "groups": 4}}
    cases = {
        'network.negative_prompt must be a text for method.distillation vsd with guidance 7.5, got null; set it, which '
        'may be to ""': no_prompt,
        "method.kind must be one of regression, gan for network edsr, got score_distillation": {
            **document,
            "network": {"kind": "edsr", "features": 8, "blocks": 2},
        },
        "method.kind must be one of denoising, shift_distillation for network residual_shifting": {
            **document,
            "network": sampled,
        },
        "expected [first, end] with at least one time": distill(kind="vsd", times=[20, 20]),
        "fake_lora": distill(kind="csd", fake_lora={"rank": 2}),
        "optimizers must name exactly the networks that the method trains, ['g'], got ['fake', 'g']": distill(
            kind="csd"
        ),
    }  # fmt: skip
    for message, bad in cases.items():
        refused = recipe_error(bad)
        assert message in refused
        assert "\n" not in refused.strip()
    parse_recipe(change(no_prompt, method={"distillation": {**VSD, "guidance": 1.0}}), "test")


def test_a_base_that_does_not_fit_is_one_sentence(base: Path, prompt: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^method\.distillation\.times: expected an end of at most 1000, .*\[20, 1001\]"
    ):
        build(base, prompt, {**CSD, "times": [20, 1001]})
    alone = save_prompt(tmp_path / "alone.safetensors", negative=False)
    with pytest.raises(InputError, match=r"^recipe: network\.negative_prompt must be a text for .* csd with guidance"):
        build(base, alone, CSD)
    with pytest.raises(InputError, match=r"^method\.distillation\.fake_lora\.targets: .* got 'to_z'"):
        build(base, prompt, {**VSD, "fake_lora": {"targets": ["to_z"]}})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train(yaml.safe_load((folder / "recipe.yaml").read_text()), folder / "two")
    distributed.destroy_process_group()
