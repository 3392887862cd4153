"""SPAN for upscaling: its convolutions are fused once, and its attention keeps its bits under bfloat16."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from selfsr.nets.spandrel.precision import keep_image_values_in_float32
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.save import save_weights


@pytest.fixture
def span(tmp_path: Path) -> tuple[nn.Module, nn.Module]:
    """Return a SPAN as spandrel opens it, and as `load_model` does."""
    from spandrel import ModelLoader

    torch.manual_seed(0)
    net = SpanSpec(features=16).build(2)
    save_weights(tmp_path / "span.safetensors", net, {})
    path = tmp_path / "span.safetensors"
    return ModelLoader(device="cpu").load_from_file(path).model.eval(), load_model(path).net


def test_fused_once_equals_fused_in_each_pass(span: tuple[nn.Module, nn.Module]) -> None:
    lr = torch.rand(1, 3, 20, 24)
    with torch.inference_mode():
        expected, found = (net(lr.clone()) for net in span)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_changed_weights_count_from_the_next_evaluation_mode(span: tuple[nn.Module, nn.Module]) -> None:
    _, net = span
    lr = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        before = net(lr)
        for parameter in net.parameters():
            parameter.mul_(1.01)
        after = net.train().eval()(lr)
    assert (after - before).abs().max() > 1e-3


def test_rounding_of_the_attention_is_gone(span: tuple[nn.Module, nn.Module]) -> None:
    _, net = span
    lr = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def measure() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return (net(lr.clone()).float() - exact).square().mean().sqrt()

    with torch.inference_mode():
        exact = net(lr.clone())
    before = measure()
    for _ in range(2):  # a second call changes nothing
        keep_image_values_in_float32(net, lr)
    assert measure() < before
    attention_inputs: list[torch.dtype] = []
    net.get_submodule("block_3.c3_r").register_forward_hook(lambda *call: attention_inputs.append(call[2].dtype))
    measure()
    assert attention_inputs == [torch.float32]
    with torch.inference_mode():
        torch.testing.assert_close(net(lr.clone()), exact)
    assert list(net.state_dict()) == list(load_state(net))


def load_state(net: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a new SPAN of the same size, by their names."""
    return SpanSpec(features=16).build(2).state_dict()
