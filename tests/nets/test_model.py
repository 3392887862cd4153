"""`Model.upscale`: images of any size and color, and the properties of models from spandrel."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.weights.load import load_model
from selfsr.nets.weights.model import Model
from selfsr.nets.weights.save import save_weights


def lr(channels=3, height=7, width=9):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(2))


class Enlarged(nn.Module):
    """The input, enlarged; refuses sizes that the model did not promise."""

    def __init__(self, channels, multiple=1, minimum=1, square=False):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.asks = (channels, multiple, minimum, square)

    def forward(self, x):
        channels, multiple, minimum, square = self.asks
        height, width = x.shape[-2:]
        assert x.shape[1] == channels
        assert height % multiple == width % multiple == 0
        assert min(height, width) >= minimum
        assert height == width or not square
        x *= self.one  # as RCAN does: in place
        return functional.interpolate(x, scale_factor=2)


def model(channels=3, multiple=1, minimum=1, square=False):
    net = Enlarged(channels, multiple, minimum, square)
    return Model(net, "Enlarged", 2, channels, "supported", multiple, minimum, square, True, True)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 20), (8, 8), (16, 17), (33, 5)])
@pytest.mark.parametrize("asks", [(1, 1, False), (4, 2, False), (8, 16, False), (3, 16, True)])
def test_upscale_accepts_any_size(size, asks):
    x = lr(3, *size)
    given = x.clone()
    out = model(3, *asks).upscale(x)
    assert torch.equal(out, functional.interpolate(x, scale_factor=2))
    assert torch.equal(x, given)


def test_upscale_pads_by_reflection():
    seen = []
    padded = model(1, multiple=4)
    padded.net.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    padded.upscale(torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])[None, None])
    assert torch.equal(seen[0][0, 0, 3], torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5, 0.4]))


def test_upscale_converts_channels():
    rgb, gray = lr(3), lr(1)
    twice = functional.interpolate(rgb, scale_factor=2)
    assert torch.equal(model(4).upscale(rgb), twice)
    out = model(3).upscale(gray)
    torch.testing.assert_close(out, functional.interpolate(gray, scale_factor=2))
    out = model(1).upscale(gray.repeat(1, 3, 1, 1))
    torch.testing.assert_close(out, functional.interpolate(gray, scale_factor=2).repeat(1, 3, 1, 1))
    out = model(1).upscale(torch.full((1, 3, 4, 4), 0.5) + torch.tensor([0.2, 0.0, -0.1]).view(1, 3, 1, 1))
    torch.testing.assert_close(out[0, :, 3, 3], torch.tensor([0.7, 0.5, 0.4]))
    with pytest.raises(InputError, match="the Enlarged network takes 3 channels, got 2; convert the image to RGB"):
        model(3).upscale(lr(2))


def test_upscale_clamps_and_keeps_dtype():
    out = model(3).upscale(2 * lr().double() - 0.5)
    assert out.dtype == torch.float64
    assert (out.min().item(), out.max().item()) == (0.0, 1.0)


def test_properties_of_other_models_come_from_spandrel(tmp_path):
    save_weights(tmp_path / "net.safetensors", SpanSpec(features=4).build(3), {})
    span = load_model(tmp_path / "net.safetensors")
    assert (span.architecture, span.scale, span.channels, span.tiling) == ("SPAN", 3, 3, "supported")
    assert (span.supports_half, span.supports_bfloat16) == (True, True)
    save_weights(tmp_path / "net.safetensors", RrdbSpec(features=4, blocks=1, unshuffle=2).build(2), {})
    rrdb = load_model(tmp_path / "net.safetensors")
    assert (rrdb.architecture, rrdb.scale, rrdb.multiple_of_px, rrdb.minimum_px) == ("ESRGAN", 2, 4, 4)
