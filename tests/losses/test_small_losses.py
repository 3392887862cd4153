"""Rank loss, total variation and focal frequency loss: definitions by hand, gradients, properties, mistakes."""

import cmath
import math
import re

import pytest
import torch

from selfsr.errors import InputError
from selfsr.losses import edge_l1_loss, focal_frequency_loss, rank_loss, total_variation


def images(n: int = 2, height: int = 6, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    sr, hr = torch.rand(2, n, 3, height, width, generator=generator, dtype=torch.float64)
    return sr, hr


def brightness(image: torch.Tensor) -> torch.Tensor:
    return 4 * image.mean(dim=(1, 2, 3)) - 3


def test_rank_loss_is_the_mean_of_sigmoids_and_has_a_gradient() -> None:
    sr = images()[0].requires_grad_()
    ranks = brightness(sr).tolist()
    value = rank_loss(sr, brightness)
    assert value.item() == pytest.approx(sum(1 / (1 + math.exp(-rank)) for rank in ranks) / 2, rel=1e-12)
    value.backward()
    for n, rank in enumerate(ranks):
        p = 1 / (1 + math.exp(-rank))
        expected = 4 * p * (1 - p) / 2 / sr[n].numel()
        torch.testing.assert_close(sr.grad[n], torch.full_like(sr[n], expected), rtol=1e-12, atol=0)


def test_published_rank_sum_is_the_mean_times_the_batch() -> None:
    sr = images(n=4)[0]
    published = 0.03 * brightness(sr).sigmoid().sum()
    assert (0.03 * 4 * rank_loss(sr, brightness)).item() == pytest.approx(published.item(), rel=1e-12)


def test_rank_loss_takes_both_shapes_and_half_precision() -> None:
    sr = images()[0]
    assert rank_loss(sr, lambda x: brightness(x)[:, None]) == rank_loss(sr, brightness)
    rounded = rank_loss(sr.bfloat16(), brightness)
    assert rounded.dtype == torch.float32
    assert rounded == rank_loss(sr.bfloat16().float(), brightness)


def test_total_variation_by_hand() -> None:
    image = torch.tensor([[0.0, 1.0, 1.5], [2.0, 1.0, 1.0]], dtype=torch.float64)[None, None]
    assert total_variation(image).item() == pytest.approx((2 + 0 + 0.5) / 3 + (1 + 0.5 + 1 + 0) / 4)
    assert total_variation(image, criterion="l2").item() == pytest.approx((4 + 0.25) / 3 + (1 + 0.25 + 1) / 4)


def focal_by_hand(difference: list[list[float]], alpha: float) -> float:
    """The weighted mean over one plane by the sums of the transform's definition."""
    height, width = len(difference), len(difference[0])
    magnitudes = []
    for u in range(height):
        for v in range(width):
            total = sum(
                difference[i][j] * cmath.exp(-2j * cmath.pi * (u * i / height + v * j / width))
                for i in range(height)
                for j in range(width)
            )
            magnitudes.append(abs(total) / math.sqrt(height * width))
    peak = max(m**alpha for m in magnitudes)
    return sum(m**alpha / peak * m * m for m in magnitudes) / len(magnitudes)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0])
def test_focal_frequency_loss_is_its_definition(alpha: float) -> None:
    sr, hr = images()
    planes = (sr - hr).flatten(0, 1).tolist()
    expected = sum(focal_by_hand(plane, alpha) for plane in planes) / len(planes)
    assert focal_frequency_loss(sr, hr, alpha=alpha).item() == pytest.approx(expected, rel=1e-10)


def test_focal_frequency_weight_has_no_gradient() -> None:
    sr, hr = images()
    x = sr.clone().requires_grad_()
    focal_frequency_loss(x, hr).backward()
    spectrum = torch.fft.fft2(sr - hr, norm="ortho")
    weight = spectrum.abs() / spectrum.abs().amax(dim=(2, 3), keepdim=True)
    expected = 2 * torch.fft.ifft2(weight * spectrum, norm="ortho").real / sr.numel()
    torch.testing.assert_close(x.grad, expected, rtol=1e-10, atol=1e-15)


def test_focal_frequency_loss_with_alpha_zero_is_the_l2_loss() -> None:
    sr, hr = images()
    expected = (sr - hr).square().mean().item()
    assert focal_frequency_loss(sr, hr, alpha=0).item() == pytest.approx(expected, rel=1e-12)


def test_equal_images_have_no_loss_and_no_gradient() -> None:
    hr = images()[1]
    x = hr.clone().requires_grad_()
    value = focal_frequency_loss(x, hr)
    value.backward()
    assert value == 0
    assert x.grad.abs().max() == 0
    flat = torch.full((1, 3, 4, 4), 0.3, requires_grad=True)
    total_variation(flat).backward()
    assert flat.grad.abs().max() == 0


@pytest.mark.parametrize("criterion", ["l1", "l2", "charbonnier"])
def test_total_variation_gradient_equals_the_numerical_one(criterion: str) -> None:
    assert torch.autograd.gradcheck(lambda x: total_variation(x, criterion=criterion), (images()[0].requires_grad_(),))


LOSSES = {
    "rank": lambda sr, hr: rank_loss(sr, brightness),
    "total variation": lambda sr, hr: total_variation(sr),
    "focal frequency": focal_frequency_loss,
}
each = pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))


@each
def test_loss_of_a_batch_is_the_mean_over_its_images(loss) -> None:
    sr, hr = images()
    mean = (loss(sr[:1], hr[:1]) + loss(sr[1:], hr[1:])) / 2
    assert loss(sr, hr).item() == pytest.approx(mean.item(), rel=1e-12)


@each
@pytest.mark.parametrize("axis", [2, 3])
def test_flips_do_not_change_the_loss(loss, axis: int) -> None:
    sr, hr = images()
    assert loss(sr.flip(axis), hr.flip(axis)).item() == pytest.approx(loss(sr, hr).item(), rel=1e-12)


@each
def test_float32_is_close_to_float64_and_half_is_computed_in_float32(loss) -> None:
    sr, hr = images()
    single = loss(sr.float(), hr.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(loss(sr, hr).item(), rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss(sr.bfloat16(), hr.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, loss(sr.bfloat16().float(), hr.bfloat16().float()))


MISTAKES = {
    "focal_frequency_loss: sr and hr must have one shape, got [2, 3, 8, 8] and [2, 1, 8, 8].": lambda x: (
        focal_frequency_loss(x, x[:, :1])
    ),
    "focal_frequency_loss: alpha must be 0 or more, got -1; 1 is published.": lambda x: focal_frequency_loss(
        x, x, alpha=-1
    ),
    "total_variation: image must be at least 2 px high and wide, got [2, 3, 1, 8].": lambda x: total_variation(
        x[:, :, :1]
    ),
    "total_variation: image must have shape [N, C, H, W], got [3, 8, 8]; add the batch axis with image[None] if it is "
    "one image.": lambda x: total_variation(x[0]),
    "rank_loss: ranker must be in evaluation mode, got one in training mode; call ranker.eval().": lambda x: rank_loss(
        x, torch.nn.Flatten()
    ),
    "rank_loss: ranker must return one number for each of 2 images, got [2, 192].": lambda x: rank_loss(
        x, torch.nn.Flatten().eval()
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistake_raises_one_sentence(message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        MISTAKES[message](torch.rand(2, 3, 8, 8))


def test_edge_l1_is_the_mean_over_masked_pixels() -> None:
    generator = torch.Generator().manual_seed(4)
    sr, hr = (torch.rand(2, 3, 5, 6, dtype=torch.float64, generator=generator) for _ in range(2))
    mask = torch.rand(2, 1, 5, 6, generator=generator) < 0.3
    expected = [(sr[n, :, i, j] - hr[n, :, i, j]).abs().sum().item() / 3 for n, _, i, j in mask.nonzero().tolist()]
    assert len(expected) > 5
    assert edge_l1_loss(sr, hr, mask).item() == pytest.approx(sum(expected) / len(expected), rel=1e-12)
    assert edge_l1_loss(sr, hr, mask, reduction="sum").item() == pytest.approx(sum(expected), rel=1e-12)
    assert edge_l1_loss(sr, hr, torch.zeros_like(mask)).item() == 0


def test_edge_l1_acts_on_masked_pixels_only() -> None:
    sr, hr = torch.full((1, 1, 2, 2), 0.7, requires_grad=True), torch.zeros(1, 1, 2, 2)
    edge_l1_loss(sr, hr, torch.tensor([[[[True, False], [False, True]]]])).backward()
    assert sr.grad is not None
    assert sr.grad.flatten().tolist() == [0.5, 0.0, 0.0, 0.5]


def test_edge_l1_refuses_other_shapes_and_reductions() -> None:
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(InputError, match=r"mask must have the shape \[1, 1, 4, 4\], got \[1, 3, 4, 4\]"):
        edge_l1_loss(image, image, torch.ones(1, 3, 4, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="reduction must be 'mean' or 'sum', got 'none'"):
        edge_l1_loss(image, image, torch.ones(1, 1, 4, 4, dtype=torch.bool), reduction="none")  # pyright: ignore
