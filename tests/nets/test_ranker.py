"""RankSRGAN's ranker: its published size and names, its value, its gradient, and its file."""

import pytest
import torch
from torch.nn.functional import conv2d

from selfsr.errors import InputError
from selfsr.nets.ranker import Ranker
from selfsr.terms.ranking import load_ranker

CPU = torch.device("cpu")


def image(side=40):
    return torch.rand(2, 3, side, side + 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def published(tmp_path):
    """A small ranker with statistics as of training, in a file as it was published: bare and pickled."""
    torch.manual_seed(2)
    ranker = Ranker(features=2)
    for name, tensor in ranker.state_dict().items():
        if tensor.is_floating_point() and name.startswith("bn"):
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    torch.save(ranker.state_dict(), tmp_path / "mmsr_Ranker_PI.pth")
    return tmp_path / "mmsr_Ranker_PI.pth", ranker


def test_ranker_size_and_names_are_published():
    with torch.device("meta"):
        ranker = Ranker()
    assert sum(p.numel() for p in ranker.parameters()) == 13_734_281
    layers = {f"conv{i}_{k}" for i in range(5) for k in (0, 1)} | {"classifier.0", "classifier.2"}
    norms = {f"bn{i}_{k}" for i in range(5) for k in (0, 1)} - {"bn0_0"}
    expected = {f"{layer}.{part}" for layer in layers | norms for part in ("weight", "bias")}
    expected |= {f"{norm}.{part}" for norm in norms for part in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(ranker.state_dict()) == expected
    assert ranker.state_dict()["classifier.0.weight"].shape == (100, 512)


def test_loaded_ranker_equals_plain_functions(published):
    path, made = published
    state, y = {name: tensor.double() for name, tensor in made.state_dict().items()}, image().double()

    def of(name, part):
        return state[f"{name}.{part}"].view(1, -1, 1, 1)

    for stage in range(5):
        for layer, stride in ((0, 1), (1, 2)):
            name, norm = f"conv{stage}_{layer}", f"bn{stage}_{layer}"
            y = conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"], stride=stride, padding=1)
            if norm != "bn0_0":
                y = (y - of(norm, "running_mean")) / (of(norm, "running_var") + 1e-5).sqrt()
                y = y * of(norm, "weight") + of(norm, "bias")
            y = torch.where(y > 0, y, 0.2 * y)
    y = y.mean(3).mean(2) @ state["classifier.0.weight"].T + state["classifier.0.bias"]
    expected = torch.where(y > 0, y, 0.2 * y) @ state["classifier.2.weight"].T + state["classifier.2.bias"]
    assert expected.shape == (2, 1)
    torch.testing.assert_close(load_ranker(path, CPU).double()(image().double()), expected, rtol=1e-9, atol=1e-12)


def test_ranker_gives_gradient_to_image_only(published):
    path, made = published
    ranker = load_ranker(path, CPU).train()  # as a module that trains around it would say
    x = image().requires_grad_(True)
    torch.sigmoid(ranker(x)).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.9
    assert not any(parameter.requires_grad for parameter in ranker.parameters())
    assert all(torch.equal(tensor, ranker.state_dict()[name]) for name, tensor in made.state_dict().items())


def test_ranks_do_not_depend_on_batch(published):
    ranker, x = load_ranker(published[0], CPU), image()
    torch.testing.assert_close(ranker(x), torch.cat([ranker(x[:1]), ranker(x[1:])]))


def test_ranks_under_autocast_are_float32(published):
    ranker = load_ranker(published[0], CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rank = ranker(image())
    assert rank.dtype == torch.float32
    torch.testing.assert_close(rank, ranker(image()), rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"head.0.weight": state["conv0_0.weight"]}, "got none named conv0_0.weight; give a file such"),
        (lambda state: {n: t for n, t in state.items() if "classifier" not in n}, "4 missing: classifier.0"),
    ],
)
def test_ranker_refuses_other_weights(published, change, message, tmp_path):
    torch.save(change(published[1].state_dict()), tmp_path / "other.pth")
    with pytest.raises(InputError, match=message):
        load_ranker(tmp_path / "other.pth", CPU)
