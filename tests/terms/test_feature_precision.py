"""Feature networks in half precision and channels-last: near the float32 loss, with float32 distances."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.recipe import parse_recipe
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.perceptual import PerceptualTerm

CPU = torch.device("cpu")


def make_images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    hr = torch.nn.functional.avg_pool2d(torch.rand(2, 3, 36, 36, generator=generator), 5, stride=1)
    return (hr + 0.02 * torch.randn(hr.shape, generator=generator)).clamp(0, 1), hr


def measure(pretrained: Path, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient."""
    term = PerceptualTerm(layers={"conv1_2": 0.5, "conv2_2": 1.0}, weights=pretrained / "vgg19.safetensors", **options)
    sr, hr = make_images()
    sr.requires_grad_()
    loss = term.build(CPU)(Outputs(sr), Batch(hr, hr), Clock(1, 1, 1))
    loss.backward()
    assert sr.grad is not None
    return loss.detach(), sr.grad


def test_channels_last_computes_the_same(pretrained: Path) -> None:
    expected, got = measure(pretrained), measure(pretrained, memory_format="channels_last")
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-3, atol=1e-6 * float(expected[1].abs().max()) + 1e-7)


def test_bfloat16_is_near_and_its_distance_is_float32(pretrained: Path) -> None:
    expected = measure(pretrained)
    loss, gradient = measure(pretrained, precision="bfloat16", memory_format="channels_last")
    assert loss.dtype == gradient.dtype == torch.float32
    assert loss != loss.to(torch.bfloat16).float()  # not rounded to 8 bits
    torch.testing.assert_close(loss, expected[0], rtol=0.03, atol=0)
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), expected[1].flatten(), dim=0)
    assert cosine > 0.95
    assert not torch.equal(gradient, expected[1])


@pytest.mark.parametrize("kind", ["perceptual", "lpips", "dists"])
def test_recipe_refuses_other_precisions(kind: str, tiny: dict) -> None:
    tiny["method"]["terms"]["seen"] = {"kind": kind, "precision": "float16"}
    with pytest.raises(InputError, match=r"precision.*(float32|bfloat16).*float16"):
        parse_recipe(tiny, "x")
