"""Self-paced weighting in a recipe: options against values by hand, and against the published form."""

import math
from dataclasses import replace

import pytest
import torch

from selfsr import SelfPacedLoss, self_paced_weight, self_similarity_loss, ssim_map
from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms.pace import Pace, PixelPace
from selfsr.terms.pixel import CharbonnierTerm, L1Term, L2Term
from selfsr.terms.similarity import SelfSimilarityTerm

# Epoch 3, and a quarter of the run.
CLOCK = Clock(step=30, steps_per_epoch=10, steps=120)


def flat(*levels: float) -> torch.Tensor:
    """Return an image whose channels are flat: then only the means decide the SSIM, at every pixel."""
    return torch.tensor(levels, dtype=torch.float64).reshape(1, -1, 1, 1).repeat(1, 1, 12, 14)


# 0.2 against 0.4: (2 * 0.08 + 1e-4) / (0.04 + 0.16 + 1e-4); equal levels: 1; 0 against 1: 1e-4 / (1 + 1e-4).
SR, HR = flat(0.2, 0.7, 0.0), flat(0.4, 0.7, 1.0)
S = (0.1601 / 0.2001, 1.0, 1e-4 / 1.0001)


def weights(pace: Pace) -> list[float]:
    """Return the weight of each channel, the same at every pixel."""
    found = pace.weight(SR, HR, CLOCK)
    assert found.shape == SR.shape
    torch.testing.assert_close(found, found[:, :, :1, :1].expand_as(found), rtol=0, atol=1e-12)
    return found[0, :, 0, 0].tolist()


def hand(distance: float, sigma: float, peak: float = 2.0) -> float:
    return peak * math.exp(-((distance / sigma) ** 2))


def test_the_published_weight() -> None:
    found = weights(Pace(alpha=0.5, beta=0.1, padding="replicate"))
    assert found == pytest.approx([hand(1 + s, 0.5 * 3 + 0.1) for s in S], rel=1e-9)


def test_clock_run_uses_the_fraction_of_the_run() -> None:
    pace = Pace(alpha=8, beta=0.1, padding="replicate", clock="run")
    assert weights(pace) == pytest.approx([hand(1 + s, 8 * 0.25 + 0.1) for s in S], rel=1e-9)
    last = replace(CLOCK, step=120)
    assert pace.age(last) == 1
    # The length of an epoch is nothing to it, and is all to the other clock.
    assert pace.age(replace(CLOCK, steps_per_epoch=1000)) == 0.25
    assert Pace().age(replace(CLOCK, steps_per_epoch=1000)) == 0.03


def test_easy_first_reverses_the_order() -> None:
    found = weights(Pace(alpha=0.1, padding="replicate", order="easy_first"))
    assert found == pytest.approx([hand(1 - s, 0.3) for s in S], rel=1e-9)
    assert found[1] > found[0] > found[2]
    hard = weights(Pace(alpha=0.1, padding="replicate"))
    assert hard[2] > hard[0] > hard[1]


def test_ssim_pixel_is_the_mean_over_channels() -> None:
    found = weights(Pace(padding="replicate", ssim="pixel"))
    assert found == pytest.approx([hand(1 + sum(S) / 3, 3)] * 3, rel=1e-9)


def test_ssim_image_is_the_mean_over_one_image() -> None:
    # The upper half of the first image is its ground truth; the second image is all of it.
    hr = flat(0.4).repeat(2, 1, 1, 1)
    sr = hr.clone()
    sr[0, :, 6:] = 0.2
    s = ssim_map(sr, hr, padding="replicate")[0].mean().item()
    assert s < 0.95
    found = Pace(padding="replicate", ssim="image").weight(sr, hr, CLOCK)
    assert found[0].flatten().tolist() == pytest.approx([hand(1 + s, 3)] * 168, rel=1e-9)
    assert found[1].flatten().tolist() == pytest.approx([hand(2, 3)] * 168, rel=1e-9)


def test_the_options_combine() -> None:
    pace = Pace(alpha=2, beta=0.2, peak=3, padding="replicate", clock="run", order="easy_first", ssim="pixel")
    assert weights(pace) == pytest.approx([hand(1 - sum(S) / 3, 2 * 0.25 + 0.2, peak=3)] * 3, rel=1e-9)


@pytest.mark.parametrize("term", [L1Term, L2Term, CharbonnierTerm])
@pytest.mark.parametrize("pace", [{"order": "easy_first"}, {"ssim": "pixel"}])
def test_variants_have_the_value_and_gradient_by_hand(term: type, pace: dict) -> None:
    generator = torch.Generator().manual_seed(7)
    sr, hr = torch.rand(2, 2, 3, 20, 24, generator=generator, dtype=torch.float64)
    sr.requires_grad_()
    spec = term(pace=PixelPace(**pace))
    loss = spec(Outputs(sr), Batch(hr=hr, lr=hr[..., ::2, ::2]), CLOCK)
    (found,) = torch.autograd.grad(loss, sr)

    s = ssim_map(sr, hr)
    s = s.mean(1, keepdim=True).expand_as(s) if "ssim" in pace else s
    w = 2 * torch.exp(-(((1 - s if "order" in pace else 1 + s) / 3) ** 2))
    d = sr.detach() - hr
    value, slope = {  # eq. 5 and 6
        L1Term: (w * d.abs(), w * d.sign()),
        L2Term: ((w * d) ** 2, 2 * w**2 * d),
        CharbonnierTerm: (((w * d) ** 2 + 1e-6).sqrt(), w**2 * d / ((w * d) ** 2 + 1e-6).sqrt()),
    }[term]
    torch.testing.assert_close(loss.detach(), value.mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found, slope / d.numel(), rtol=1e-9, atol=1e-15)


def test_the_published_form_uses_the_fused_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    sr, hr = torch.rand(2, 1, 3, 20, 24, generator=torch.Generator().manual_seed(7))
    pace = PixelPace(alpha=0.4, beta=0.1, peak=3, data_range=0.5, padding="reflect", clock="run")
    options = {"alpha": 0.4, "beta": 0.1, "peak": 3, "data_range": 0.5, "padding": "reflect"}
    monkeypatch.setattr(Pace, "weight", lambda *_: pytest.fail("the slow form was taken"))
    found = L1Term(pace=pace)(Outputs(sr), Batch(hr=hr, lr=hr), CLOCK)
    assert found == SelfPacedLoss("l1", **options)(sr, hr, 0.25)
    monkeypatch.undo()
    assert torch.equal(pace.weight(sr, hr, CLOCK), self_paced_weight(sr, hr, 0.25, **options))


def test_self_similarity_leaves_out_pixels_below_half_the_peak() -> None:
    # One half is far from its ground truth, in mean and in contrast; the other is nearly right.
    hr = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    sr = hr * 0.98
    sr[..., :32] = 1 - hr[..., :32]
    mask = torch.zeros(1, 1, 32, 64, dtype=torch.bool)
    mask[..., 10:22, 8:56:4] = True
    batch = Batch(hr=hr, lr=hr[..., ::2, ::2], mask=mask)
    size = {"search_px": 9, "window_px": 3, "sigma": 1.0}

    def found(pace: dict | None, step: int) -> MaskedSum:
        spec = SelfSimilarityTerm.model_validate({"kind": "self_similarity", "stride": 1, **size, "pace": pace})
        return spec(Outputs(sr), batch, Clock(step, 1))

    def over(chosen: torch.Tensor) -> torch.Tensor:
        return self_similarity_loss(sr, hr, chosen, reduction="sum", **size)

    # w >= M / 2 where 1 + s <= sigma sqrt(ln 2): at sigma = 1e-4 nowhere, at 1 where s <= -0.17, at 9 everywhere.
    left, whole = mask.clone(), found(None, 1)
    left[..., 32:] = False
    far = (1 + ssim_map(sr, hr).mean(1, keepdim=True)) <= math.sqrt(math.log(2))
    assert far[left].float().mean() > 0.9
    assert not far[mask & ~left].any()
    early, midway, late = found({"alpha": 1e-4}, 1), found({"ssim": "pixel"}, 1), found({"ssim": "pixel"}, 9)
    assert early.total == 0
    torch.testing.assert_close(midway.total, over(mask & far), rtol=1e-12, atol=0)
    assert 0.1 * whole.total < midway.total < whole.total
    assert late.total == whole.total == over(mask)
    assert early.count == midway.count == late.count == whole.count == mask.sum()
