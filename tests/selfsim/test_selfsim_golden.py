"""The golden values of the published method: 2 x 3 x 24 x 20, 87 masked pixels."""

from dataclasses import dataclass

import pytest
from selfsim_cases import golden_images
from selfsim_tolerances import GOLDEN_DIGITS

from interpreter import is_interpreted
from selfsr import self_similarity_graph, self_similarity_loss


@dataclass(frozen=True)
class Golden:
    search_px: int
    window_px: int
    sigma: float
    l1: float
    kl: float
    x_center: float
    y_center: float
    y_first: float
    gradient_l1: float
    gradient_a: float
    gradient_b: float

    @property
    def sizes(self):
        return {"search_px": self.search_px, "window_px": self.window_px, "sigma": self.sigma}


# fmt: off
NORMALIZED = [
    Golden(7, 3, 0.004, 2.708688926841e-3, 1.208832949131e-3, 4.158367765e-1, 2.506535794e-1, 6.794e-29,
           1.992121687e2, -5.727826716e-2, 8.777751671e-3),
    Golden(7, 3, 0.05, 1.789456082568e-3, 1.316220591462e-4, 6.680438458e-2, 5.291040093e-2, 3.297505943e-4,
           6.770694755e1, -1.340053166e-2, 5.935602094e-3),
    Golden(9, 5, 0.01, 2.417521471968e-3, 3.982417945418e-4, 2.524115399e-1, 1.507512343e-1, 1.663850798e-13,
           1.589498953e2, -4.609068192e-2, 1.551003375e-2),
    Golden(25, 9, 0.004, 1.522146208203e-4, 4.794659367556e-5, 5.153424881e-1, 3.858296166e-1, 3.079993e-28,
           1.207504644e1, -6.568511219e-3, 5.267706662e-3),
    Golden(25, 9, 0.05, 5.173982136234e-5, 1.289815673812e-6, 6.922209848e-3, 6.409859548e-3, 4.355327834e-5,
           2.150489236, 7.184550835e-4, 3.347894096e-4),
]
# fmt: on
RAW = [
    (7, 3, 0.004, 3.582817115066e-3, 5.450767803178e-3),
    (9, 5, 0.01, 5.757487527894e-3, 7.495804347105e-3),
    (25, 9, 0.004, 1.507347480179e-4, 2.314981309904e-4),
]


def skip_if_too_slow(backend, search_px):
    if backend == "triton" and is_interpreted() and search_px > 7:
        pytest.skip("the interpreter would take too long")


def tensors(dtype, device):
    sr, hr, mask = golden_images(2, 3, 24, 20)
    return sr.to(device, dtype), hr.to(device, dtype), mask.to(device)


def test_golden_mask_has_the_published_pixel_counts():
    _, _, mask = golden_images(2, 3, 24, 20)
    assert [int(image.sum()) for image in mask] == [44, 43]


@pytest.mark.parametrize("golden", NORMALIZED, ids=lambda g: f"{g.search_px}-{g.window_px}-{g.sigma}")
def test_loss_parts_equal_the_golden_values(golden, backend, dtype, device):
    skip_if_too_slow(backend, golden.search_px)
    sr, hr, mask = tensors(dtype, device)
    options = {**golden.sizes, "backend": backend}
    l1 = self_similarity_loss(sr, hr, mask, kl_weight=0.0, **options).item()
    kl = self_similarity_loss(sr, hr, mask, l1_weight=0.0, **options).item()
    assert l1 == pytest.approx(golden.l1, rel=GOLDEN_DIGITS[dtype])
    assert kl == pytest.approx(golden.kl, rel=GOLDEN_DIGITS[dtype])


@pytest.mark.parametrize(("search_px", "window_px", "sigma", "l1", "kl"), RAW)
def test_raw_loss_parts_equal_the_golden_values(search_px, window_px, sigma, l1, kl, backend, dtype, device):
    skip_if_too_slow(backend, search_px)
    sr, hr, mask = tensors(dtype, device)
    options = {"search_px": search_px, "window_px": window_px, "sigma": sigma, "normalize": False, "backend": backend}
    l1_part = self_similarity_loss(sr, hr, mask, kl_weight=0.0, **options).item()
    assert l1_part == pytest.approx(l1, rel=GOLDEN_DIGITS[dtype])
    kl_part = self_similarity_loss(sr, hr, mask, l1_weight=0.0, **options).item()
    assert kl_part == pytest.approx(kl, rel=GOLDEN_DIGITS[dtype])


@pytest.mark.parametrize("golden", NORMALIZED, ids=lambda g: f"{g.search_px}-{g.window_px}-{g.sigma}")
def test_graph_equals_the_golden_values(golden, backend, dtype, device):
    skip_if_too_slow(backend, golden.search_px)
    sr, hr, mask = tensors(dtype, device)
    center = golden.search_px**2 // 2
    x, y = (self_similarity_graph(image, mask, backend=backend, **golden.sizes) for image in (sr, hr))
    assert x.shape == (87, golden.search_px**2)
    assert x[0, center].item() == pytest.approx(golden.x_center, rel=GOLDEN_DIGITS[dtype])
    assert y[0, center].item() == pytest.approx(golden.y_center, rel=GOLDEN_DIGITS[dtype])
    # Printed with four digits; e to the power of -66 magnifies a rounding error of q by as much.
    assert y[0, 0].item() == pytest.approx(golden.y_first, rel=2e-4)


@pytest.mark.parametrize("golden", NORMALIZED, ids=lambda g: f"{g.search_px}-{g.window_px}-{g.sigma}")
def test_gradient_equals_the_golden_values(golden, backend, dtype, device):
    skip_if_too_slow(backend, golden.search_px)
    sr, hr, mask = tensors(dtype, device)
    loss = self_similarity_loss(sr.requires_grad_(), hr, mask, backend=backend, **golden.sizes)
    (1000 * loss).backward()
    rel = GOLDEN_DIGITS[dtype]
    assert sr.grad is not None
    assert sr.grad.abs().sum().item() == pytest.approx(golden.gradient_l1, rel=rel)
    largest = sr.grad.abs().max().item()
    assert sr.grad[0, 1, 10, 9].item() == pytest.approx(golden.gradient_a, rel=rel, abs=rel * largest)
    assert sr.grad[1, 2, 0, 0].item() == pytest.approx(golden.gradient_b, rel=rel, abs=rel * largest)
