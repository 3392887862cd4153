"""Batch norm over two processes, against torch's own on the whole batch in one."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from selfsr.losses.adversarial import r1_penalty
from selfsr.nets.discriminators.vgg import VggDiscriminatorSpec
from selfsr.training.batch_norm import DistributedBatchNorm2d, normalize_over_processes
from two_processes import run_in_two_processes

# Sums of some hundred numbers in another order; whatever is wrong in a formula is wrong by far more.
EXACT = {"rtol": 1e-10, "atol": 1e-10}
# Far from zero and narrow, as no batch norm likes it: the mean of squares is 1e8 times the variance.
FAR, NARROW = 1e3, 0.1


def images() -> Tensor:
    """Return a batch whose second half is of other brightness and contrast than its first."""
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[3:] = 0.3 * x[3:] + 2
    return x


def network() -> nn.Sequential:
    """Return a small discriminator with every kind of batch norm; two passes distinguish a cumulative average."""
    torch.manual_seed(2)
    norms = (nn.BatchNorm2d(4), nn.BatchNorm2d(5, momentum=None), nn.BatchNorm2d(4, affine=False))
    bare = nn.BatchNorm2d(3, eps=0.1, track_running_stats=False)
    convs = (nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 4, 3), nn.Conv2d(4, 3, 1))
    layers = [part for pair in zip(convs, (*norms, bare), strict=True) for part in (*pair, nn.Softplus())]
    net = nn.Sequential(*layers, nn.Conv2d(3, 1, 2)).double()
    for norm in norms[:2]:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    return net


def measure(net: nn.Module, module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what two passes through `net`, which has or is `module`, and the gradient of a penalized loss give."""
    module.train()
    net(x.detach() ** 2)
    x = x.clone().requires_grad_()
    logits = net(x)
    (slope,) = torch.autograd.grad(logits.exp().sum(), x, create_graph=True)
    (logits.square().mean() + slope.square().sum(dim=(1, 2, 3)).mean() + 5 * r1_penalty(logits, x)).backward()
    assert x.grad is not None
    found = {"logits": logits.detach(), "slope": slope.detach(), "input gradient": x.grad}
    found |= {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    return found | dict(module.named_buffers())


def statistics(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output of a pass, and the running estimates after it."""
    norm.train()
    norm.momentum = 1.0
    y = norm(x)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return y.detach(), norm.running_mean, norm.running_var


def far_and_narrow() -> Tensor:
    return (FAR + NARROW * images()).float()


def main(folder: Path) -> None:
    """Measure what one process of two does, with its half of the batch."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    mine = slice(3 * rank, 3 * rank + 3)
    net = network()
    normalize_over_processes(net)
    # As the trainer wraps it.
    found = {"whole": measure(DistributedDataParallel(net, broadcast_buffers=False), net, images()[mine])}
    if rank == 0:
        # Evaluating is no concern of the other process, which does not take part here.
        found["evaluated"] = net.eval()(images())
    found["far"] = statistics(DistributedBatchNorm2d(3), far_and_narrow()[mine])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found["bfloat16"] = statistics(DistributedBatchNorm2d(3), images()[mine].bfloat16())
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """Return the measurements of each of two processes."""
    folder = tmp_path_factory.mktemp("halves")
    run_in_two_processes(Path(__file__).resolve(), folder, cwd=folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_normalize_by_the_full_batch(halves: list[dict]) -> None:
    """Output, gradient, gradient of gradients, running estimates: all as in one process."""
    net = network()
    expected = measure(net, net, images())
    first, second = (half["whole"] for half in halves)
    assert len(expected) == 3 + len(list(net.parameters())) + 9
    assert first.keys() == second.keys() == expected.keys()
    for name, value in expected.items():
        if name in ("logits", "slope", "input gradient"):
            # The loss is a mean. An image's share in that of its half is twice its share in that of the whole.
            times = 2 if name == "input gradient" else 1
            torch.testing.assert_close(torch.cat([first[name], second[name]]), times * value, **EXACT)
        else:
            torch.testing.assert_close(first[name], value, **EXACT)
            assert torch.equal(first[name], second[name]), name
    torch.testing.assert_close(halves[0]["evaluated"], net.eval()(images()), **EXACT)


def test_statistics_of_each_half_exceed_the_tolerance() -> None:
    """The tolerances above must refuse statistics of each half."""
    net = network()
    apart = [measure(alone, alone, images()[half]) for half, alone in ((slice(3), net), (slice(3, 6), network()))]
    whole = network()
    expected = measure(whole, whole, images())
    for name in ("logits", "slope", "input gradient"):
        times = 2 if name == "input gradient" else 1
        error = torch.cat([half[name] for half in apart]) - times * expected[name]
        assert error.norm() > 0.05 * expected[name].norm(), name


def test_variance_is_exact_far_from_zero(halves: list[dict]) -> None:
    """The values are rounded to 6e-5, the spread is 0.1; the mean of squares in float32 would miss it altogether."""
    x = far_and_narrow().double()
    y, mean, variance = statistics(nn.BatchNorm2d(3).double(), x)
    for half, part in zip(halves, (y[:3], y[3:]), strict=True):
        found, found_mean, found_variance = half["far"]
        torch.testing.assert_close(found_mean.double(), mean, rtol=1e-7, atol=0)
        # The mean, rounded to 3e-5 at most, adds its squared error to the variance.
        torch.testing.assert_close(found_variance.double(), variance, rtol=1e-5, atol=0)
        torch.testing.assert_close(found.double(), part, rtol=1e-5, atol=1e-3)


def test_statistics_are_float32_under_bfloat16(halves: list[dict]) -> None:
    x = images().bfloat16()
    y, mean, variance = statistics(nn.BatchNorm2d(3).double(), x.double())
    for half, part in zip(halves, (y[:3], y[3:]), strict=True):
        found, found_mean, found_variance = half["bfloat16"]
        assert found.dtype == torch.bfloat16
        assert found_mean.dtype == found_variance.dtype == torch.float32
        torch.testing.assert_close(found.double(), part, rtol=2**-8, atol=2**-20)
        torch.testing.assert_close(found_mean.double(), mean, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found_variance.double(), variance, rtol=1e-6, atol=0)


def test_a_network_keeps_its_keys_and_weights() -> None:
    discriminator = VggDiscriminatorSpec(features=4).build(3, 32)
    before = copy.deepcopy(discriminator.state_dict())
    weights = list(discriminator.parameters())
    normalize_over_processes(discriminator)
    norms = [module for module in discriminator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 5
    assert all(type(norm) is DistributedBatchNorm2d for norm in norms)
    assert all(a is b for a, b in zip(weights, discriminator.parameters(), strict=True))
    after = discriminator.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_one_process_equals_torchs_batch_norm_bit_for_bit() -> None:
    net, converted = network(), network()
    normalize_over_processes(converted)
    expected, found = measure(net, net, images()), measure(converted, converted, images())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
