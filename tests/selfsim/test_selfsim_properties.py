"""Properties that hold for any numbers: symmetries, batches, chunks, empty masks, NaN, repetition."""

import pytest
import torch
from selfsim_cases import OPTIONS, TINY, Case, compute, images, truth
from selfsim_tolerances import AT_EQUAL_IMAGES, TOLERANCES, relative_error

from selfsr import SelfSimilarityLoss, edge_mask, self_similarity_graph, self_similarity_loss
from selfsr.selfsim.contract import Geometry, working_bytes


def value_and_gradient(sr, hr, mask, **options):
    sr = sr.detach().clone().requires_grad_()
    loss = self_similarity_loss(sr, hr, mask, **{**OPTIONS, **options})
    (gradient,) = torch.autograd.grad(loss, sr)
    return loss.detach(), gradient


@pytest.fixture
def pair(device, backend):
    """sr, hr and mask, float32, two images of 10 x 12."""
    sr, hr, mask = images(Case(2, 3, 10, 12, 7, 3, 0.05, mask="random"))
    return sr.float().to(device), hr.float().to(device), mask.to(device)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
def test_flipped_images_flip_the_gradient(axes, pair, backend):
    sr, hr, mask = pair
    loss, gradient = value_and_gradient(sr, hr, mask, backend=backend)
    flipped = (tensor.flip(axes) for tensor in pair)
    loss_flipped, gradient_flipped = value_and_gradient(*flipped, backend=backend)
    assert loss_flipped.item() == pytest.approx(loss.item(), rel=1e-6)
    assert relative_error(gradient_flipped.flip(axes), gradient) <= TOLERANCES[torch.float32].gradient


def test_transposed_images_transpose_the_gradient(pair, backend):
    sr, hr, mask = pair
    loss, gradient = value_and_gradient(sr, hr, mask, backend=backend)
    loss_turned, gradient_turned = value_and_gradient(sr.mT, hr.mT, mask.mT, backend=backend)
    assert loss_turned.item() == pytest.approx(loss.item(), rel=1e-6)
    assert relative_error(gradient_turned.mT, gradient) <= TOLERANCES[torch.float32].gradient


def test_reordered_channels_reorder_the_gradient(pair, backend):
    sr, hr, mask = pair
    _, gradient = value_and_gradient(sr, hr, mask, backend=backend)
    _, reordered = value_and_gradient(sr[:, [2, 0, 1]], hr[:, [2, 0, 1]], mask, backend=backend)
    assert relative_error(reordered[:, [1, 2, 0]], gradient) <= TOLERANCES[torch.float32].gradient


def test_batch_equals_the_sum_of_its_images(pair, backend):
    together, gradient = value_and_gradient(*pair, backend=backend, reduction="sum")
    alone = [value_and_gradient(*(t[i : i + 1] for t in pair), backend=backend, reduction="sum") for i in range(2)]
    assert together.item() == pytest.approx(sum(loss.item() for loss, _ in alone), rel=1e-6)
    assert relative_error(torch.cat([g for _, g in alone]), gradient) <= TOLERANCES[torch.float32].gradient


def test_mean_is_the_sum_divided_by_the_masked_pixels(pair, backend):
    mask = pair[2]
    total, mean = (self_similarity_loss(*pair, **OPTIONS, backend=backend, reduction=r) for r in ("sum", "mean"))
    assert mean.item() == pytest.approx(total.item() / int(mask.sum()), rel=1e-6)


def test_weights_multiply_the_loss_parts(pair, backend):
    weighted = [
        value_and_gradient(*pair, backend=backend, l1_weight=a, kl_weight=b) for a, b in ((1, 0), (0, 1), (3, 5))
    ]
    assert weighted[2][0].item() == pytest.approx(3 * weighted[0][0].item() + 5 * weighted[1][0].item(), rel=1e-6)
    wanted = 3 * weighted[0][1] + 5 * weighted[1][1]
    assert relative_error(weighted[2][1], wanted) <= 2 * TOLERANCES[torch.float32].gradient


def test_gradient_is_zero_outside_all_search_areas(pair, backend):
    sr, hr, mask = pair
    mask = torch.zeros_like(mask)
    mask[0, :, 1, 1] = True
    _, gradient = value_and_gradient(sr, hr, mask, backend=backend, search_px=7, window_px=3)
    assert gradient[0, :, :5, :5].abs().min() > 0
    assert not gradient[0, :, 5:].any()
    assert not gradient[0, :, :, 5:].any()
    assert not gradient[1].any()


@pytest.mark.parametrize("normalize", [True, False])
def test_equal_images_have_zero_loss_and_gradient(normalize, backend, dtype, device):
    case = Case(1, 3, 9, 12, 7, 3, 0.05, normalize=normalize)
    _, hr, mask = (tensor.to(device) for tensor in images(case))
    hr = hr.to(dtype)
    loss, gradient = value_and_gradient(
        hr, hr, mask, backend=backend, **{**case.options, "kl_weight": float(normalize)}
    )
    assert loss.item() == 0
    scale = truth(case).gradient.abs().max().item()
    assert gradient.abs().max().item() <= AT_EQUAL_IMAGES[dtype] * scale


def test_loss_is_the_same_for_any_budget(backend, device, large, monkeypatch):
    from selfsr.selfsim import chunks

    plans = []
    plan_chunks = chunks.plan_chunks
    monkeypatch.setattr(chunks, "plan_chunks", lambda *arguments: plans.append(plan_chunks(*arguments)) or plans[-1])
    geometry = Geometry(large.search_px, large.window_px, large.sigma, large.normalize)
    sizes = {
        "one row": working_bytes(large.width, 1, 1, large.width, geometry, 4),
        "half an image": working_bytes(large.width * large.height // 8, 1, large.height // 2, large.width, geometry, 4),
        "all": 2**30,
    }
    results = {
        name: compute(large, backend, torch.float32, device, memory_mb=size / 2**20) for name, size in sizes.items()
    }
    numbers = [len(plan) for plan in plans[::3]]
    assert numbers[0] > numbers[1] > numbers[2] == 1
    for name in ("one row", "half an image"):
        assert results[name].l1.item() == pytest.approx(results["all"].l1.item(), rel=1e-6)
        error = relative_error(results[name].gradient, results["all"].gradient)
        assert error <= TOLERANCES[torch.float32].gradient


def test_graph_is_the_same_for_any_budget(backend, device, large):
    image, _, mask = (tensor.to(device) for tensor in images(large))
    image = image.float()
    geometry = Geometry(large.search_px, large.window_px)
    smallest = working_bytes(large.width, 1, 1, large.width, geometry, 4) / 2**20
    in_one_chunk = self_similarity_graph(image, mask, backend=backend, **large.options)
    row_by_row = self_similarity_graph(image, mask, backend=backend, memory_mb=smallest, **large.options)
    torch.testing.assert_close(row_by_row, in_one_chunk, rtol=0, atol=TOLERANCES[torch.float32].graph)


@pytest.mark.parametrize("more", [0, 5])
def test_max_pixels_above_the_mask_changes_nothing(more, pair, backend):
    mask = pair[2]
    loss, gradient = value_and_gradient(*pair, backend=backend, normalize=False)
    count = int(mask.sum()) + more
    loss_known, gradient_known = value_and_gradient(*pair, backend=backend, max_pixels=count, normalize=False)
    assert loss_known.item() == pytest.approx(loss.item(), rel=1e-6)
    assert relative_error(gradient_known, gradient) <= TOLERANCES[torch.float32].gradient


def test_max_pixels_below_the_mask_keeps_the_first_pixels(pair, backend):
    sr, hr, mask = pair
    first = mask & (mask.flatten().cumsum(0) <= 10).view_as(mask)
    wanted, _ = value_and_gradient(sr, hr, first, backend=backend)
    limited, _ = value_and_gradient(sr, hr, mask, backend=backend, max_pixels=10)
    assert limited.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("max_pixels", [None, 4])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_empty_mask_gives_zero_with_a_zero_gradient(reduction, max_pixels, pair, backend):
    sr, hr, mask = pair
    loss, gradient = value_and_gradient(
        sr, hr, torch.zeros_like(mask), backend=backend, reduction=reduction, max_pixels=max_pixels
    )
    assert loss.item() == 0
    assert gradient.shape == sr.shape
    assert not gradient.any()


def test_empty_mask_gives_an_empty_graph(pair, backend):
    sr, _, mask = pair
    graph = self_similarity_graph(sr.requires_grad_(), torch.zeros_like(mask), backend=backend, **OPTIONS)
    assert graph.shape == (0, OPTIONS["search_px"] ** 2)
    graph.sum().backward()
    assert sr.grad is not None
    assert not sr.grad.any()


def test_batch_of_no_images_has_zero_loss(backend, device):
    sr = torch.zeros(0, 3, 9, 9, device=device, requires_grad=True)
    mask = torch.zeros(0, 1, 9, 9, device=device, dtype=torch.bool)
    loss = self_similarity_loss(sr, sr.detach(), mask, backend=backend, **OPTIONS)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinity_in_a_search_area_gives_nan(value, pair, backend):
    sr, hr, mask = pair
    mask[0, 0, 5, 5] = True
    for name in ("sr", "hr"):
        bad = {"sr": sr.clone(), "hr": hr.clone()}
        bad[name][0, 1, 5, 5] = value
        loss, gradient = value_and_gradient(bad["sr"], bad["hr"], mask, backend=backend)
        assert loss.isnan(), name
        assert gradient.isnan().any() or value == float("inf"), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinity_stays_in_its_image(value, backend, device):
    """A weight of 0 would carry NaN from one image to the next, which is its neighbor in memory."""
    case = Case(3, 1, 4, 5, 5, 3, 0.05, mask="all")
    sr, hr, mask = (tensor.to(device) for tensor in images(case))
    sr, hr = sr.float(), hr.float()
    _, wanted = value_and_gradient(sr, hr, mask, backend=backend, **case.options)
    sr[1] = value
    loss, gradient = value_and_gradient(sr, hr, mask, backend=backend, **case.options)
    assert loss.isnan()
    assert gradient[1].isnan().all()
    assert torch.equal(gradient[::2], wanted[::2])
    graph = self_similarity_graph(sr.requires_grad_(), mask, backend=backend, **case.options)
    weights = torch.linspace(-1, 1, graph.numel(), device=device).view_as(graph)
    graph[:20].mul(weights[:20]).sum().backward()
    assert sr.grad[0].isfinite().all()
    assert not sr.grad[2].any()


def test_values_outside_0_to_1_are_not_clamped(backend, device):
    case = TINY[0]
    sr, hr, mask = (tensor.to(device) for tensor in images(case))
    shifted, _ = value_and_gradient(3 * sr - 2, 3 * hr - 2, mask, backend=backend, sigma=0.2, normalize=False)
    from selfsr.selfsim import reference

    options = {**OPTIONS, "sigma": 0.2, "normalize": False}
    wanted = sum(reference.loss_parts(3 * sr.cpu() - 2, 3 * hr.cpu() - 2, mask.cpu(), **options))
    assert shifted.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.usefixtures("poisoned_memory")
def test_uninitialized_memory_is_never_read(case, backend, device):
    result, wanted = compute(case, backend, torch.float32, device), truth(case)
    assert relative_error(result.kl, wanted.kl) <= TOLERANCES[torch.float32].kl
    assert relative_error(result.gradient, wanted.gradient) <= TOLERANCES[torch.float32].gradient


def test_repeated_calls_give_the_same_bits(backend, device, large):
    first, second = (compute(large, backend, torch.float32, device) for _ in range(2))
    for a, b in ((first.l1, second.l1), (first.kl, second.kl), (first.gradient, second.gradient)):
        assert torch.equal(a, b)


def test_any_number_of_threads_gives_the_same_bits(backend, device):
    if device.type != "cpu" or backend == "triton":
        pytest.skip("threads matter on the CPU only")
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(1, 3, 72, 88, generator=generator)
    sr = hr + 0.05 * torch.rand(hr.shape, generator=generator)
    mask = torch.rand(1, 1, 72, 88, generator=generator) < 0.2
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(value_and_gradient(sr, hr, mask, backend=backend, search_px=25, window_px=9, sigma=0.004))
    finally:
        torch.set_num_threads(threads)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_without_a_mask_the_edge_mask_of_hr_is_used(backend, device):
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(1, 3, 12, 12, generator=generator).to(device)
    sr = (hr * 0.9).requires_grad_()
    wanted = self_similarity_loss(sr, hr, edge_mask(hr, stride=3), backend=backend, **OPTIONS)
    assert torch.equal(self_similarity_loss(sr, hr, backend=backend, **OPTIONS), wanted)
    assert torch.equal(SelfSimilarityLoss(backend=backend, **OPTIONS)(sr, hr), wanted)


def test_module_passes_its_options_to_the_function(backend, device):
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(1, 3, 12, 12, generator=generator).to(device)
    sr = hr.flip(3)
    options = {
        **OPTIONS, "normalize": False, "l1_weight": 2.0, "kl_weight": 3.0, "reduction": "sum", "memory_mb": 64.0,
        "backend": backend, "max_pixels": 144,
    }  # fmt: skip
    module = SelfSimilarityLoss(**options, threshold=40.0, stride=2, two_sided=True)
    mask = edge_mask(hr, threshold=40.0, stride=2, two_sided=True)
    assert torch.equal(module(sr, hr), self_similarity_loss(sr, hr, mask, **options))
    mask = torch.ones_like(mask)
    assert torch.equal(module(sr, hr, mask), self_similarity_loss(sr, hr, mask, **options))
    constructor_options = {**options, "threshold": 40.0, "stride": 2, "two_sided": True}
    assert all(f"{name}={value!r}" in repr(module) for name, value in constructor_options.items())


def test_reference_equals_a_row_computed_by_hand():
    """One pixel, search 3, window 1, one channel: nine squared differences."""
    from selfsr.selfsim import reference

    image = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5], [0.6, 0.7, 0.8]], dtype=torch.float64)[None, None]
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    mask[..., 1, 1] = True
    row = reference.graph(image, mask, search_px=3, window_px=1, sigma=0.1, normalize=False)[0]
    wanted = torch.exp(-((image.flatten() - 0.4) ** 2) / 0.1)
    torch.testing.assert_close(row, wanted)
