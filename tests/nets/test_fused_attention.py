"""Window attention as one kernel: values and gradients of spandrel's own classes, and memory that is no larger."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from selfsr.nets.spandrel import attention
from selfsr.nets.spandrel.any import SpandrelSpec
from selfsr.nets.spandrel.dat import DatSpec
from selfsr.nets.spandrel.hat import HatSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.save import save_weights

# Every kind of block: with and without shift, several heads, and sides of 16 and 20 pixels, which are not those that
# the masks are computed for beforehand.
TINY = {
    "swinir": SwinIrSpec(features=12, depths=(2,), heads=(2,), window_px=4, drop_path=0),
    "dat": DatSpec(features=96, depths=(4,), heads=(2,), split_px=(2, 4), expansion=1.5, drop_path=0),
    "hat": HatSpec(features=12, depths=(2,), heads=(2,), window_px=4, squeeze_factor=3, drop_path=0),
}
CLASSES = {
    "swinir": {attention.FusedSwinAttention},
    "dat": {attention.FusedSpatialAttention},
    "hat": {attention.FusedHatAttention, attention.FusedOverlappingAttention},
}


def make_net(name: str) -> nn.Module:
    """Return a tiny network whose biases matter: each parameter is moved at random."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    net = TINY[name].build(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return net.train()


def restore_original(net: nn.Module) -> nn.Module:
    """Return a copy with spandrel's own classes."""
    net = copy.deepcopy(net)
    originals = {fused: original for original, fused in attention._FUSED.items()}
    for module in net.modules():
        module.__class__ = originals.get(type(module), type(module))
    return net


def image(height: int = 16, width: int = 20, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


class CountOperators(TorchDispatchMode):
    """Count attention in one kernel and softmax, and keep the size of the largest result in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.softmax, self.largest_bytes = 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.fused += func.name() == "aten::_scaled_dot_product_flash_attention_for_cpu"
        self.softmax += func.name() == "aten::_softmax"
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor):
                self.largest_bytes = max(self.largest_bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose one kernel also for training on a CPU, as on CUDA."""
    monkeypatch.setattr(attention, "is_fused_faster", lambda _: True)


@pytest.mark.parametrize("name", TINY)
def test_each_attention_over_windows_is_replaced(name: str) -> None:
    net = make_net(name)
    assert {type(module) for module in net.modules()} & set(attention._FUSED.values()) == CLASSES[name]
    assert not {type(module) for module in net.modules()} & set(attention._FUSED)
    assert list(net.state_dict()) == list(restore_original(net).state_dict())


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("name", "size"), [*itertools.product(TINY, [(16, 20), (8, 8)])])
def test_values_and_gradients_are_those_of_spandrels_classes_in_float64(name: str, size: tuple[int, int]) -> None:
    net = make_net(name).double()
    original = restore_original(net)
    results = []
    for each in (original, net):
        lr = image(*size, dtype=torch.float64).requires_grad_()
        out = each(lr)
        out.square().mean().backward()
        results.append((out, lr.grad, {key: p.grad for key, p in each.named_parameters() if p.grad is not None}))
    largest = max(gradient.abs().max().item() for gradient in results[0][2].values())
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12 * max(largest, 1))
    moved = [key for key in results[0][2] if "bias_table" in key or ".pos.pos3.2.weight" in key]
    assert moved
    assert all(results[1][2][key].abs().max() > 0 for key in moved)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", TINY)
def test_float32_is_as_near_to_float64_as_spandrels_classes(name: str) -> None:
    net = make_net(name).eval()
    with torch.no_grad():
        exact = copy.deepcopy(net).double()(image(dtype=torch.float64))
        errors = [(each(image()) - exact).abs().max().item() for each in (net, restore_original(net))]
    assert errors[0] <= 2 * errors[1] + 1e-6 * exact.abs().max().item()


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", TINY)
def test_autocast_rounds_no_more_than_spandrels_classes(name: str) -> None:
    net = make_net(name).eval()
    with torch.no_grad():
        exact = net(image())
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(each(image()) - exact).square().mean().sqrt() for each in (net, restore_original(net))]
    assert 0 < errors[0] < 1.5 * errors[1]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", TINY)
def test_channels_last_gives_the_same_values(name: str) -> None:
    net = make_net(name).eval().double()
    lr = image(dtype=torch.float64)
    with torch.no_grad():
        expected = net(lr)
        got = net.to(memory_format=torch.channels_last)(lr.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", TINY)
def test_a_cpu_uses_one_kernel_only_without_gradient(name: str) -> None:
    net, lr = make_net(name).double(), image(dtype=torch.float64)
    with CountOperators() as training:
        expected = restore_original(net)(lr)
        assert torch.equal(net(lr), expected)
    assert training.fused == 0
    original = restore_original(net)
    counts = []
    for each in (original, net):
        with torch.no_grad(), CountOperators() as count:
            torch.testing.assert_close(each(lr), expected, rtol=1e-9, atol=1e-11)
        counts.append(count)
    windows = counts[0].softmax - counts[1].softmax
    assert counts[0].fused == 0
    assert counts[1].fused == windows > 0


@pytest.mark.parametrize("name", TINY)
def test_upscaling_has_no_larger_tensor(name: str) -> None:
    net = make_net(name).eval()
    largest = []
    for each in (restore_original(net), net):
        with torch.no_grad(), CountOperators() as count:  # inference mode would show fewer operators
            each(image(64, 64)[:1])
        largest.append(count.largest_bytes)
    assert largest[1] <= largest[0]


def test_dropout_of_the_weights_acts_in_training_only() -> None:
    options = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4, "upsampler": "pixelshuffle"}
    spec = SpandrelSpec(architecture="SwinIR", options=options | {"attn_drop_rate": 0.5, "drop_path_rate": 0.0})
    net = spec.build(2)
    assert any(type(module) is attention.FusedSwinAttention for module in net.modules())
    with torch.no_grad():
        assert not torch.equal(net(image()), net(image()))
        net.eval()
        assert torch.equal(net(image()), net(image()))


@pytest.mark.parametrize("name", TINY)
def test_opened_files_have_the_same_classes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net = make_net(name).eval()
    save_weights(path, restore_original(net), {})
    opened = load_model(path).net
    assert {type(module) for module in opened.modules()} & set(attention._FUSED.values()) == CLASSES[name]
    with torch.no_grad():
        torch.testing.assert_close(opened(image(16, 16)), net(image(16, 16)), rtol=1e-4, atol=1e-4)


@pytest.mark.compile
@pytest.mark.parametrize(("name", "trained"), [*itertools.product(TINY, (False, True))])
def test_the_attention_is_one_graph(name: str, trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if trained:
        monkeypatch.setattr(attention, "is_fused_faster", lambda _: True)
    net = make_net(name)
    fused = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        fused.append(sum(node.target is F.scaled_dot_product_attention for node in graph.graph.nodes))
        return graph

    torch.compiler.reset()
    compiled = torch.compile(net.forward, fullgraph=True, backend=count, dynamic=False)
    with torch.set_grad_enabled(trained), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(image()), net(image()))
    windows = sum(type(module) in CLASSES[name] for module in net.modules())
    assert fused == [windows]
    torch.compiler.reset()
