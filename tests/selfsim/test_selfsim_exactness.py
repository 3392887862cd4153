"""Value, gradient and graph against the definition, and mutants that the tolerances must reject."""

import pytest
import torch
from selfsim_cases import CASES, Result, compute, images, naive, truth, weighted_graph
from selfsim_tolerances import TOLERANCES, assert_no_worse_than_naive, relative_error

from selfsr import self_similarity_graph


def test_value_and_gradient_match_the_definition(case, backend, dtype, device):
    result, wanted, limit = compute(case, backend, dtype, device), truth(case), TOLERANCES[dtype]
    assert relative_error(result.l1, wanted.l1) <= limit.l1
    assert relative_error(result.kl, wanted.kl) <= limit.kl
    assert relative_error(result.gradient, wanted.gradient) <= limit.gradient


def test_float32_is_no_worse_than_the_float32_definition(case, backend, device):
    result = compute(case, backend, torch.float32, device)
    assert_no_worse_than_naive(result.gradient, naive(case, torch.float32).gradient, truth(case).gradient)


def test_graph_and_gradient_match_the_definition(case, backend, dtype, device):
    wanted, weights, wanted_gradient = weighted_graph(case)
    image, _, mask = images(case)
    image = image.to(device, dtype).requires_grad_()
    graph = self_similarity_graph(image, mask.to(device), backend=backend, **case.options)
    (gradient,) = torch.autograd.grad((graph * weights.to(graph)).sum(), image)
    assert relative_error(graph.detach().cpu(), wanted) <= TOLERANCES[dtype].graph
    assert relative_error(gradient.cpu(), wanted_gradient) <= TOLERANCES[dtype].gradient


def test_gradient_passes_gradcheck(backend, device):
    if device.type == "mps":
        pytest.skip("this device has no float64")
    case = CASES[0]
    sr, hr, mask = (tensor[..., :7, :6].to(device) for tensor in images(case))

    def total(sr):
        from selfsr import self_similarity_loss

        options = {"search_px": 5, "window_px": 3, "sigma": 0.05, "backend": backend}
        # KL only: |X - Y| has kinks.
        return self_similarity_loss(sr, hr, mask, l1_weight=0.0, kl_weight=1000.0, **options)

    assert torch.autograd.gradcheck(total, sr.clone().requires_grad_(), eps=1e-6, atol=1e-6, rtol=1e-5)


def make_mutants(result: Result, case) -> dict[str, Result]:
    """Return results with typical mistakes of kernels."""
    shifted = result.gradient.roll(1, 3)
    no_row, no_column = result.gradient.clone(), result.gradient.clone()
    no_row[:, :, -1] = 0
    no_column[:, :, :, -1] = 0
    unequal = result.gradient.clone()
    unequal[0] *= 1.001
    entries = case.search_px**2
    return {
        "gradient x 0.9": Result(result.l1, result.kl, result.gradient * 0.9),
        "no gradient": Result(result.l1, result.kl, torch.zeros_like(result.gradient)),
        "shifted by one pixel": Result(result.l1, result.kl, shifted),
        "last row missing": Result(result.l1, result.kl, no_row),
        "last column missing": Result(result.l1, result.kl, no_column),
        "one image 0.1 % off": Result(result.l1, result.kl, unequal),
        "divided by S*S - 1": Result(
            *(value * entries / (entries - 1) for value in (result.l1, result.kl, result.gradient))
        ),
    }


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("mutant", make_mutants(truth(CASES[6]), CASES[6]))
def test_tolerances_reject_each_mutant(mutant, dtype):
    case = CASES[6]
    wanted, limit = truth(case), TOLERANCES[dtype]
    mutated = make_mutants(naive(case, dtype), case)[mutant]
    assert relative_error(mutated.gradient, wanted.gradient) > limit.gradient
    with pytest.raises(AssertionError, match="rms error"):
        assert_no_worse_than_naive(mutated.gradient, naive(case, dtype).gradient, wanted.gradient)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])
def test_value_tolerances_reject_a_wrong_normalizer(dtype):
    wanted, limit = truth(CASES[6]), TOLERANCES[dtype]
    mutated = make_mutants(naive(CASES[6], dtype), CASES[6])["divided by S*S - 1"]
    assert relative_error(mutated.l1, wanted.l1) > limit.l1
    assert relative_error(mutated.kl, wanted.kl) > limit.kl
