"""Layers that stay in float32: they compute as PyTorch's with all options, in any precision."""

import pytest
import torch
from torch import nn

from selfsr.nets.layers import Float32Conv2d, Float32ConvTranspose2d, pad_reflect

CONVOLUTIONS = [
    (Float32Conv2d, nn.Conv2d, {"padding": 2, "stride": 2, "dilation": 2, "groups": 2}),
    (Float32Conv2d, nn.Conv2d, {"bias": False}),
    (Float32ConvTranspose2d, nn.ConvTranspose2d, {"padding": 1, "stride": 3, "output_padding": 2, "groups": 2}),
    (Float32ConvTranspose2d, nn.ConvTranspose2d, {"dilation": 2, "bias": False}),
]


@pytest.mark.parametrize(("float32_type", "torch_type", "options"), CONVOLUTIONS)
def test_float32_convolution_equals_torch_with_all_options(float32_type, torch_type, options):
    torch.manual_seed(0)
    ours, theirs = float32_type(4, 6, 3, **options), torch_type(4, 6, 3, **options)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 4, 9, 8)
    assert torch.equal(ours(x), theirs(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(ours(x), theirs(x).float())
        assert ours(x).dtype == torch.float32
    assert ours.double()(x.double()).dtype == torch.float64


def test_like_keeps_options_and_parameters():
    conv = nn.Conv2d(4, 6, 3, padding=2, stride=2, dilation=2, groups=2)
    twin, x = Float32Conv2d.like(conv), torch.rand(1, 4, 9, 8)
    assert twin.weight is conv.weight
    assert twin.bias is conv.bias
    assert torch.equal(twin(x), conv(x))


def test_pad_reflect_repeats_the_reflection_of_small_images():
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert pad_reflect(x, 2, 8)[0, 0].tolist() == 2 * [[0, 1, 2, 1, 0, 1, 2, 1]]
