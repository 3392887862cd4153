"""Weights cast together: values and gradients of autocast, bit for bit, for every network that is trained here."""

import copy

import pytest
import torch
from test_discriminators import TINY as DISCRIMINATORS
from test_own_nets import TINY as OWN
from test_own_nets import nudge
from test_spandrel_nets import TINY as SPANDREL
from torch import Tensor, nn

from selfsr.training.weight_casts import cast_weights_together

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # spandrel's own, when it loads
]
GENERATORS = OWN | SPANDREL


def run_pass(net: nn.Module, image: Tensor, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Return the output and the gradients of all parameters, by name, of one pass under autocast."""
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype):
        out = net(image)
    outputs = out if isinstance(out, tuple) else (out,)
    torch.stack([(output.float() * torch.randn(output.shape)).sum() for output in outputs]).sum().backward()
    results = {f"output {index}": output.detach() for index, output in enumerate(outputs)}
    return results | {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def check_equal(net: nn.Module, image: Tensor) -> None:
    twin = copy.deepcopy(net)
    keys = list(twin.state_dict())
    cast_weights_together(twin, torch.bfloat16)
    expected, got = run_pass(net, image), run_pass(twin, image)
    assert list(twin.state_dict()) == keys
    assert all(isinstance(p, nn.Parameter) and p.dtype == torch.float32 for p in twin.parameters())
    assert got.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(expected[name], got[name])]
    assert not different
    assert all(got[name].stride() == expected[name].stride() for name in expected)


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_computes_as_under_autocast(name: str) -> None:
    spec = GENERATORS[name]
    torch.manual_seed(0)
    net = nudge(spec.build(spec.scales[0], spec.channel_counts[-1])).train()
    image = torch.rand(2, spec.channel_counts[-1], 16, 16, generator=torch.Generator().manual_seed(1))
    check_equal(net, image)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_computes_as_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    net = DISCRIMINATORS[name].build(3, 24).train().to(memory_format=torch.channels_last)
    check_equal(net, torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(1)))


def make_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(), nn.Conv2d(4, 3, 1))


def test_layers_compute_with_the_given_dtype_and_keep_their_parameters() -> None:
    net, seen = make_layers(), []
    compute, weight = net[0]._conv_forward, net[0].weight
    net[0]._conv_forward = lambda x, *tensors: seen.append([t.dtype for t in tensors]) or compute(x, *tensors)
    net[1].register_forward_hook(lambda layer, *_: seen.append((layer.weight.dtype, net[0].weight.dtype)))
    cast_weights_together(net, torch.bfloat16)
    run_pass(net, torch.rand(1, 3, 8, 8))
    # A PReLU computes with its own weight, and what reads the weight of a layer gets the parameter.
    assert seen == [[torch.bfloat16, torch.bfloat16], (torch.float32, torch.float32)]
    assert net[0].weight is weight


def test_parameters_return_after_an_error_in_the_pass() -> None:
    net = make_layers()
    weights = list(net.parameters())
    cast_weights_together(net, torch.bfloat16)
    with pytest.raises(RuntimeError), torch.autocast("cpu", torch.bfloat16):
        net(torch.rand(1, 5, 8, 8))  # 5 channels instead of 3
    assert all(a is b for a, b in zip(net.parameters(), weights, strict=True))


def test_frozen_weights_get_no_gradient_and_cost_no_pass() -> None:
    net = make_layers()
    net[0].requires_grad_(False)
    cast_weights_together(net, torch.bfloat16)
    requires: list[bool] = []

    def record(layer: nn.Module) -> None:
        compute = layer._conv_forward
        layer._conv_forward = lambda x, weight, bias: requires.append(weight.requires_grad) or compute(x, weight, bias)

    record(net[0])
    record(net[2])
    gradients = run_pass(net, torch.rand(1, 3, 8, 8))
    assert requires == [False, True]
    assert set(gradients) == {"output 0", "1.weight", "2.weight", "2.bias"}


def test_layer_that_a_pass_leaves_out_gets_no_gradient() -> None:
    net = make_layers()
    net.register_module("spare", nn.Conv2d(3, 3, 1))
    net.forward = lambda image: net[2](net[1](net[0](image)))
    cast_weights_together(net, torch.bfloat16)
    run_pass(net, torch.rand(1, 3, 8, 8))
    assert net.spare.weight.grad is None
    assert net[0].weight.grad is not None


def test_second_derivatives_reach_the_weights() -> None:
    """The penalties of discriminators differentiate the gradient of the input."""
    net, twin = make_layers(), make_layers()
    cast_weights_together(twin, torch.bfloat16)
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for layers in (net, twin):
        with torch.autocast("cpu", torch.bfloat16):
            out = layers(image)
        (gradient,) = torch.autograd.grad(out.float().square().sum(), image, create_graph=True)
        gradient.square().sum().backward()
    for expected, got in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(expected.grad, got.grad)
