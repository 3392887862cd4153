"""SPAN's convolution is trained as one convolution, with the values and gradients of its four branches."""

import torch
from spandrel.architectures.SPAN.__arch.span import Conv3XC
from torch import Tensor

from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.spandrel.span_conv import TrainableConv3XC


def _make_conv() -> TrainableConv3XC:
    torch.manual_seed(3)
    return TrainableConv3XC(5, 7, gain1=2).double().train()


def _compute_gradients(conv: TrainableConv3XC, out: Tensor, x: Tensor) -> list[Tensor]:
    trained = [p for p in conv.parameters() if p.requires_grad]
    return list(torch.autograd.grad((out**3).sum(), [x, *trained]))


def test_the_fused_kernel_gives_the_branches_values_and_gradients_also_at_the_border() -> None:
    conv = _make_conv()
    x = torch.randn(2, 5, 6, 4, dtype=torch.float64, requires_grad=True)
    branches, fused = Conv3XC.forward(conv, x), conv(x)
    torch.testing.assert_close(fused, branches, rtol=1e-12, atol=1e-12)
    expected = _compute_gradients(conv, branches, x)
    got = _compute_gradients(conv, fused, x)
    assert len(expected) == 9, "the input, and kernel and bias of four convolutions"
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_training_and_evaluation_give_the_same_output() -> None:
    torch.manual_seed(4)
    net = SpanSpec(features=8, subtract_mean=False).build(2, 3)
    x = torch.rand(1, 3, 9, 7)
    torch.testing.assert_close(net.train()(x), net.eval()(x), rtol=1e-5, atol=1e-6)


def test_the_kernel_is_fused_in_float32_under_autocast_and_its_convolution_is_not() -> None:
    conv = TrainableConv3XC(4, 4, gain1=2).train()
    x = torch.rand(1, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight, bias = conv._fuse()
        assert (weight.dtype, bias.dtype) == (torch.float32, torch.float32)
        assert conv(x).dtype == torch.bfloat16
