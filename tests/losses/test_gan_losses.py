"""Losses of images for GAN training: golden values, definitions by hand, gradients, properties, mistakes."""

import re

import pytest
import torch
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.images.resize import imresize
from selfsr.losses import (
    artifact_loss,
    artifact_map,
    back_projection_loss,
    best_buddy_loss,
    flat_mask,
    gradient_branch_loss,
    gradient_loss,
    gradient_map,
)
from selfsr.losses.best_buddy import luma_deviation

# Golden values have nine or ten digits.
GOLDEN = 1e-8


def quarter(image: torch.Tensor) -> torch.Tensor:
    return imresize(image, scale=0.25)


def close(value: torch.Tensor, expected: float) -> bool:
    return value.item() == pytest.approx(expected, rel=GOLDEN)


def test_golden_artifact_map(golden) -> None:
    weight = artifact_map(golden.sr, golden.hr, golden.ema_sr)
    assert weight.shape == (2, 1, 24, 20)
    assert close(weight.mean(), 2.347307926e-6)
    assert close(weight.max(), 5.313500980e-6)
    assert close((weight == 0).double().mean(), 0.4458333333)
    assert close(weight[0, 0, 5, 6], 4.037671523e-6)
    assert close(weight[1, 0, 12, 3], 4.534939492e-6)
    assert close(artifact_map(golden.sr, golden.hr).mean(), 4.229075666e-6)
    assert close(artifact_loss(golden.sr, golden.hr, golden.ema_sr), 8.993384718e-8)


def test_golden_best_buddy(golden) -> None:
    assert close(best_buddy_loss(golden.sr, golden.hr), 3.819318181e-2)


def test_golden_back_projection(golden) -> None:
    # The values were made by a resampler with float32 taps, which is within 4e-7 of MATLAB's.
    lr = quarter(golden.sr)
    assert lr.mean().item() == pytest.approx(0.511058007, abs=4e-7)
    assert lr[0, 0, 0, 0].item() == pytest.approx(0.654211462, abs=4e-7)
    assert lr[1, 2, 3, 2].item() == pytest.approx(0.435565382, abs=4e-7)
    assert back_projection_loss(golden.sr, lr, quarter) == 0
    assert back_projection_loss(golden.sr, lr + 0.25, quarter).item() == pytest.approx(0.25, rel=1e-12)


def test_golden_flat_mask(golden) -> None:
    deviation = luma_deviation(golden.hr)
    assert close(deviation[0, 0, 10, 10], 0.141803106)
    torch.testing.assert_close(flat_mask(golden.hr, threshold=0.1418), deviation < 0.1418)
    assert not flat_mask(golden.hr).any()


def test_golden_gradient_map(golden) -> None:
    result = gradient_map(golden.hr)
    assert close(result.mean(), 0.344648108)
    assert close(result[0, 0, 0, 0], 0.854761829)
    assert close(result[1, 2, 10, 9], 0.106446733)
    assert close(gradient_loss(golden.sr, golden.hr), 3.941155727e-3)
    assert close(gradient_branch_loss(golden.sr, golden.hr), (golden.sr - result).abs().mean().item())


def test_artifact_map_is_its_definition_at_a_corner(golden) -> None:
    residual = (golden.hr - golden.sr).abs().sum(dim=1)[1]
    rows = columns = [3, 2, 1, 0, 1, 2, 3]  # mirrored, the edge not repeated
    window = torch.stack([residual[i, j] for i in rows for j in columns])
    around = ((window - window.mean()) ** 2).sum() / 48
    whole = ((residual - residual.mean()) ** 2).sum() / (24 * 20 - 1)
    assert artifact_map(golden.sr, golden.hr)[1, 0, 0, 0].item() == pytest.approx(
        (whole**0.2 * around).item(), rel=1e-12
    )


def test_best_buddies_equal_an_exhaustive_search() -> None:
    alpha, beta = 0.7, 1.6
    generator = torch.Generator().manual_seed(5)
    sr, hr = torch.rand(2, 1, 3, 24, 20, generator=generator, dtype=torch.float64)

    def patches(image: torch.Tensor) -> list[torch.Tensor]:
        height, width = image.shape[2:]
        corners = [(i, j) for i in range(0, height - 2, 3) for j in range(0, width - 2, 3)]
        return [image[0, :, i : i + 3, j : j + 3] for i, j in corners]

    half, fourth = (
        functional.interpolate(hr, scale_factor=s, mode="bicubic", align_corners=False) for s in (0.5, 0.25)
    )
    candidates = patches(hr) + patches(half) + patches(fourth)
    assert len(candidates) == 8 * 6 + 4 * 3 + 2 * 1
    losses_, strangers = [], 0
    for p, g in zip(patches(sr), patches(hr), strict=True):
        costs = [alpha * (g - c).square().sum() + beta * (p - c).square().sum() for c in candidates]
        buddy = candidates[int(torch.stack(costs).argmin())]
        strangers += not torch.equal(buddy, g)
        losses_.append((p - buddy).abs().mean())
    assert strangers > 24  # of 48, so that the choice is seen
    result = best_buddy_loss(sr, hr, alpha=alpha, beta=beta)
    assert result.item() == pytest.approx(torch.stack(losses_).mean().item(), rel=1e-12)


def test_best_buddy_loss_does_not_depend_on_memory_mb() -> None:
    sr, hr = torch.rand(2, 2, 3, 24, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    whole = best_buddy_loss(sr, hr)
    assert whole < 0.95 * (sr - hr).abs().mean()
    assert best_buddy_loss(sr, hr, memory_mb=1e-6) == whole
    assert best_buddy_loss(sr, hr, memory_mb=0.01) == whole


def test_best_buddy_loss_skips_scales_smaller_than_a_patch() -> None:
    hr = torch.rand(1, 3, 5, 3)
    # One patch in hr, none in its reduced versions: the only buddy is the counterpart.
    sr = torch.rand(1, 3, 5, 3)
    expected = (sr - hr)[:, :, :3].abs().mean()
    torch.testing.assert_close(best_buddy_loss(sr, hr), expected)


def test_flat_mask_thresholds_the_deviation_of_luma() -> None:
    hr = torch.full((1, 3, 32, 32), 0.4)
    hr[0, 1, 20, 20] = 0.9  # luma + 0.2935, which is a deviation of 0.2935 / 11 = 0.0267 wherever a window has it
    flat = flat_mask(hr)
    expected = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    expected[0, 0, 15:26, 15:26] = False
    assert torch.equal(flat, expected)
    assert flat_mask(hr, threshold=0.028).all()
    assert torch.equal(flat_mask(hr[:, 1:2]), flat_mask(hr[:, 1:2].expand(1, 3, 32, 32) * 1.0001))


def test_gradient_map_by_hand() -> None:
    image = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    image[0, 0, 1, 1] = 3.0
    image[0, 0, 0, 1] = 4.0
    expected = torch.tensor([[16.0, 9.0, 16.0], [9.0, 16.0, 9.0], [0.0, 9.0, 0.0]], dtype=torch.float64) + 1e-6
    torch.testing.assert_close(gradient_map(image)[0, 0], expected.sqrt())


# Losses of (sr, hr) that are smooth almost everywhere.
PAIRED = {
    "artifact": lambda sr, hr: artifact_loss(sr, hr),
    "artifact, averaged": lambda sr, hr: artifact_loss(sr, hr, ema_sr=0.7 * hr + 0.3 * sr.detach()),
    "artifact, detached": lambda sr, hr: artifact_loss(sr, hr, detach_map=True),
    "best buddy": lambda sr, hr: best_buddy_loss(sr, hr),
    "best buddy, l2": lambda sr, hr: best_buddy_loss(sr, hr, criterion="l2"),
    "back projection": lambda sr, hr: back_projection_loss(sr, quarter(hr), quarter),
    "gradient": lambda sr, hr: gradient_loss(sr, hr),
    "gradient, l1": lambda sr, hr: gradient_loss(sr, hr, criterion="l1"),
}
paired = pytest.mark.parametrize("loss", PAIRED.values(), ids=list(PAIRED))


@pytest.mark.parametrize("name", [name for name in PAIRED if name != "artifact, detached" and "averaged" not in name])
def test_gradients_equal_numerical_ones(golden, name: str) -> None:
    sr, hr = golden.sr[:1, :, :12, :12], golden.hr[:1, :, :12, :12]
    assert torch.autograd.gradcheck(lambda x: PAIRED[name](x, hr), (sr.clone().requires_grad_(),))


def test_gradient_of_the_artifact_loss_with_an_average(golden) -> None:
    sr, hr, ema_sr = (image[:1, :, :12, :12] for image in golden)
    ema_sr = ema_sr.clone().requires_grad_()
    x = sr.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: artifact_loss(x, hr, ema_sr), (x,))
    artifact_loss(x, hr, ema_sr).backward()
    assert ema_sr.grad is None


def test_a_detached_map_leaves_the_gradient_of_a_weighted_l1(golden) -> None:
    sr, hr, ema_sr = golden
    x = sr.clone().requires_grad_()
    artifact_loss(x, hr, ema_sr, detach_map=True).backward()
    expected = artifact_map(sr, hr, ema_sr) * (sr - hr).sign() / sr.numel()
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=0)
    y = sr.clone().requires_grad_()
    artifact_loss(y, hr, ema_sr).backward()
    assert (y.grad - x.grad).norm() > 0.1 * x.grad.norm()


@paired
def test_equal_images_have_no_loss_and_no_gradient(golden, loss) -> None:
    x = golden.hr.clone().requires_grad_()
    value = loss(x, golden.hr)
    value.backward()
    # The reduction by 4 rounds differently, if at all.
    assert abs(value.item()) < 1e-15
    assert x.grad.abs().max() == 0 or loss is PAIRED["back projection"]


@paired
def test_a_constant_offset_has_a_finite_gradient(golden, loss) -> None:
    x = (golden.hr + 0.125).requires_grad_()
    loss(x, golden.hr).backward()
    assert x.grad.isfinite().all()


@paired
def test_loss_of_a_batch_is_the_mean_over_its_images(golden, loss) -> None:
    sr, hr, _ = golden
    each = [loss(sr[n : n + 1], hr[n : n + 1]) for n in range(2)]
    assert loss(sr, hr).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-12)
    assert each[0].item() != pytest.approx(each[1].item(), rel=1e-5)


@paired
@pytest.mark.parametrize("axis", [2, 3])
def test_flips_do_not_change_the_loss(golden, loss, axis: int) -> None:
    # Patches and their reduced versions must fall on the same places.
    sr, hr = golden.sr[..., :24, :12], golden.hr[..., :24, :12]
    flipped = loss(sr.flip(axis), hr.flip(axis))
    assert flipped.item() == pytest.approx(loss(sr, hr).item(), rel=1e-12)


@paired
def test_float32_is_close_to_float64_and_half_is_computed_in_float32(golden, loss) -> None:
    sr, hr, _ = golden
    single = loss(sr.float(), hr.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(loss(sr, hr).item(), rel=1e-5)
    if loss is PAIRED["back projection"]:
        return  # what reduces the image is the caller's
    rounded = loss(sr.bfloat16(), hr.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, loss(sr.bfloat16().float(), hr.bfloat16().float()))


@paired
def test_layout_and_autocast_do_not_change_the_loss(golden, loss) -> None:
    sr, hr = golden.sr.float(), golden.hr.float()
    expected = loss(sr, hr)
    last = {"memory_format": torch.channels_last}
    torch.testing.assert_close(loss(sr.to(**last), hr.to(**last)), expected, rtol=1e-5, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(loss(sr, hr), expected, rtol=1e-6, atol=0)


MISTAKES = {
    "artifact_map: sr and hr must have one shape, got [2, 3, 8, 8] and [2, 1, 8, 8].": lambda x: artifact_loss(
        x, x[:, :1]
    ),
    "artifact_map: window_px must be odd and at least 3, got 6.": lambda x: artifact_map(x, x, window_px=6),
    "artifact_map: images must be larger than 8 px on each side for a window of 17 px, got [2, 1, 8, 8]; "
    "pass a larger crop.": lambda x: artifact_map(x, x, window_px=17),
    "best_buddy_loss: patch_px must be at least 1 and fit images of [2, 3, 8, 8], got 9.": lambda x: best_buddy_loss(
        x, x, patch_px=9
    ),
    "best_buddy_loss: alpha and beta must be 0 or more and not both 0, got 0 and 0.": lambda x: best_buddy_loss(
        x, x, alpha=0, beta=0
    ),
    "best_buddy_loss: scales must be in (0, 1] and include 1, got [0.5].": lambda x: best_buddy_loss(
        x, x, scales=(0.5,)
    ),
    "best_buddy_loss: criterion must be one of l1, l2, charbonnier, got 'l_2'; did you mean 'l2'?": lambda x: (
        best_buddy_loss(x, x, criterion="l_2")
    ),
    "back_projection_loss: downscale(sr) and lr must have one shape, got [2, 3, 2, 2] and [2, 3, 4, 4].": lambda x: (
        back_projection_loss(x, x[..., ::2, ::2], quarter)
    ),
    "flat_mask: hr must have 1 or 3 channels, got [2, 2, 8, 8].": lambda x: flat_mask(x[:, :2]),
    "gradient_map: image must be a float tensor in [0, 1], got torch.uint8; for 8-bit images pass "
    "image.float() / 255.": lambda x: gradient_map(x.to(torch.uint8)),
    "gradient_branch_loss: branch and hr must have one shape, got [2, 1, 8, 8] and [2, 3, 8, 8].": lambda x: (
        gradient_branch_loss(x[:, :1], x)
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistake_raises_one_sentence(message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        MISTAKES[message](torch.rand(2, 3, 8, 8))
