"""Values of the published operator, computed once from its code in float64 on images given by formulas."""

import math

import pytest
import torch

from selfsr import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.pacing import reference

# Loss by age, for L1 and L2, and figures of the map; images in [0, 1] and times 255, constants for [0, 1] in both.
L1 = {
    1: {0.5: 1.32422856e-8, 1: 1.55360861e-3, 2: 2.88432204e-2, 8: 7.18812865e-2, 64: 7.63207390e-2},
    255: {0.5: 3.40380503e-6, 1: 3.96850746e-1, 2: 7.35808015, 8: 18.3301999, 64: 19.4617963},
}
L2 = {
    1: {1: 2.98424639e-6, 2: 1.02652419e-3, 64: 7.18638461e-3},
    255: {1: 1.94749250e-1, 2: 66.8058656, 64: 467.295034},
}
MAP = {
    1: {"mean": 0.973880809, "min": 0.884348145, "max": 0.997743709, "corner": 0.996519521, "inner": 0.966016266},
    255: {"mean": 0.973461383, "min": 0.877241689, "max": 0.997736910, "corner": 0.996503863, "inner": 0.965428816},
}
MEAN_WEIGHT = {1: 0.040673991, 255: 0.040743877}

# The published window is rounded to float32 and sums to 1 - 7e-8; ours sums to 1. The map moves by 2e-8, and at age
# 0.5 the weight by 2 (s + 1) / sigma^2 = 16 times as much.
WINDOW_SHIFT = 5e-7


def images(scale: float, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    b, c, i, j = torch.meshgrid(*(torch.arange(n).double() for n in (2, 3, 32, 40)), indexing="ij")
    hr = 0.5 + 0.3 * torch.sin(0.7 * i + 1.3 * c + 0.9 * b) * torch.cos(0.45 * j - 0.6 * c)
    hr += 0.15 * torch.sin(0.11 * i * j + 0.4 * b)
    sr = hr + 0.06 * torch.sin(1.9 * i - 0.8 * j + c + 0.5 * b)
    return (sr * scale).to(dtype), (hr * scale).to(dtype)


def summarize_map(s: torch.Tensor) -> dict[str, float]:
    return {
        "mean": s.mean().item(),
        "min": s.min().item(),
        "max": s.max().item(),
        "corner": s[0, 0, 0, 0].item(),
        "inner": s[1, 2, 16, 20].item(),
    }


@pytest.mark.parametrize("scale", [1, 255])
def test_reference_with_published_window_has_published_values(scale: int) -> None:
    sr, hr = images(scale)
    s = reference.ssim(sr, hr, taps=reference.window(torch.float32))
    assert summarize_map(s) == pytest.approx(MAP[scale], rel=1e-8)
    assert reference.weight(s, 1.0).mean().item() == pytest.approx(MEAN_WEIGHT[scale], rel=1e-8)
    for name, losses in (("l1", L1[scale]), ("l2", L2[scale])):
        for age, expected in losses.items():
            value = reference.loss(sr, hr, reference.weight(s, age), name).mean().item()
            assert value == pytest.approx(expected, rel=1e-8), f"{name} at age {age}"


@pytest.mark.filterwarnings("ignore::selfsr.RangeWarning")  # the published code has images in 0 to 255
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, WINDOW_SHIFT), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize("scale", [1, 255])
def test_backend_has_the_published_values(
    scale: int, dtype: torch.dtype, rel: float, backend: str, device: torch.device
) -> None:
    sr, hr = (image.to(device) for image in images(scale, dtype))
    # With data_range = 1 on images in 0..255 the values are those of the published code.
    options = {"data_range": 1.0, "backend": backend}
    assert summarize_map(ssim_map(sr, hr, **options)) == pytest.approx(MAP[scale], rel=rel)
    weight = self_paced_weight(sr, hr, 1.0, **options)
    assert weight.double().mean().item() == pytest.approx(MEAN_WEIGHT[scale], rel=rel)
    for name, losses in (("l1", L1[scale]), ("l2", L2[scale])):
        for age, expected in losses.items():
            value = SelfPacedLoss(name, **options)(sr, hr, age).item()
            assert value == pytest.approx(expected, rel=rel), f"{name} at age {age}"


# Rows: age; columns: SSIM of -1, -0.5, 0, 0.5, 0.9, 1.
WEIGHTS = {
    0.25: (2, 0.036631, 0, 0, 0, 0),
    0.5: (2, 0.735759, 0.036631, 0.000247, 0.000001, 0),
    1: (2, 1.557602, 0.735759, 0.210798, 0.054104, 0.036631),
    2: (2, 1.878826, 1.557602, 1.139566, 0.811109, 0.735759),
    4: (2, 1.968993, 1.878826, 1.737630, 1.596035, 1.557602),
    8: (2, 1.992203, 1.968993, 1.930909, 1.890310, 1.878826),
    16: (2, 1.998048, 1.992203, 1.982499, 1.971995, 1.968993),
    64: (2, 1.999878, 1.999512, 1.998902, 1.998238, 1.998048),
}


@pytest.mark.parametrize("age", WEIGHTS)
def test_reference_weight_by_age(age: float) -> None:
    s = torch.tensor([-1, -0.5, 0, 0.5, 0.9, 1], dtype=torch.float64)
    assert reference.weight(s, age).tolist() == pytest.approx(WEIGHTS[age], abs=6e-7)


@pytest.mark.parametrize("age", WEIGHTS)
def test_weight_of_equal_images_by_age(age: float, backend: str, device: torch.device) -> None:
    x = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)).to(device)
    expected = 2 * math.exp(-((2 / age) ** 2))
    weight = self_paced_weight(x, x, age, backend=backend)
    torch.testing.assert_close(weight, torch.full_like(x, expected), rtol=5e-5, atol=0)
    assert WEIGHTS[age][-1] == pytest.approx(expected, abs=6e-7)
