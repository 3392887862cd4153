"""Errors for a user's mistakes: one sentence each, raised before any work."""

import math
from functools import partial

import pytest
import torch

from selfsr import SelfSimilarityLoss, self_similarity_graph, self_similarity_loss
from selfsr._ops import backends
from selfsr.errors import InputError
from selfsr.selfsim import operator

SR = torch.rand(2, 3, 16, 14)
MASK = torch.ones(2, 1, 16, 14, dtype=torch.bool)
SIZES = {"search_px": 7, "window_px": 3}


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    """Fail if the images are touched."""

    def touched(*arguments):
        raise AssertionError("work was done before the check")

    monkeypatch.setattr(operator, "_pad_reflect", touched)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"search_px": 8}, "search_px must be odd and positive, got 8; pass 7 or 9."),
        ({"window_px": 4}, "window_px must be odd and positive, got 4; pass 3 or 5."),
        ({"window_px": -1}, "window_px must be odd and positive, got -1; pass 1 or 3."),
        (
            {"window_px": 9},
            "window_px must be at most search_px, got 9 and 7; pass a smaller window or a larger search area.",
        ),
        ({"sigma": 0.0}, "sigma must be above 0, got 0.0; pass 0.004 as published."),
        ({"sigma": -1.0}, "sigma must be above 0, got -1.0; pass 0.004 as published."),
        ({"sigma": math.nan}, "sigma must be above 0, got nan; pass 0.004 as published."),
        (
            {"search_px": 29},
            "images must be larger than search_px // 2 = 14 px to reflect the search area, got [2, 3, 16, 14]; "
            "pass larger crops or a search_px of at most 27.",
        ),
        (
            {"backend": "gpu"},
            "backend must be one of auto, cpu, triton, eager, got 'gpu'; leave it at 'auto' if unsure.",
        ),
        (
            {"memory_mb": 0.01},
            "memory_mb=0.01 is too small, one row of an image may take 1.08 MiB; pass memory_mb=2 or more.",
        ),
    ],
)
@pytest.mark.parametrize("caller", ["self_similarity_loss", "self_similarity_graph"])
def test_wrong_option_raises_before_any_work(caller, options, sentence):
    call = partial(self_similarity_loss, SR) if caller == "self_similarity_loss" else self_similarity_graph
    with pytest.raises(InputError) as caught:
        call(SR, MASK, **{**SIZES, **options})
    assert str(caught.value) == f"{caller}: {sentence}"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reduction": "none"}, "reduction must be one of mean, sum, got 'none'."),
        ({"max_pixels": 0}, "max_pixels must be 1 or more, got 0; pass None to count them."),
        (
            {"max_pixels": 448, "memory_mb": 0.5},
            "memory_mb=0.5 is too small, 448 pixels in one piece may take 2.12 MiB; pass memory_mb=3 or more.",
        ),
    ],
)
def test_wrong_option_of_the_loss_raises_before_any_work(options, sentence):
    with pytest.raises(InputError) as caught:
        self_similarity_loss(SR, SR, MASK, **SIZES, **options)
    assert str(caught.value) == f"self_similarity_loss: {sentence}"


@pytest.mark.parametrize(
    ("sr", "hr", "mask", "sentence"),
    [
        (
            SR[0],
            SR[0],
            MASK,
            "sr must have shape [N, C, H, W], got [3, 16, 14]; add the batch axis with sr[None] if it is one image.",
        ),
        (
            (SR * 255).byte(),
            SR,
            MASK,
            "sr must be a float tensor in [0, 1], got torch.uint8; for 8-bit images pass sr.float() / 255.",
        ),
        (SR, SR[:, :, :-1], MASK, "sr and hr must have one shape, got [2, 3, 16, 14] and [2, 3, 15, 14]."),
        (
            SR,
            SR,
            MASK.float(),
            "mask must be a bool tensor of shape [2, 1, 16, 14], got torch.float32 [2, 1, 16, 14]; "
            "make one from numbers with mask > 0.5.",
        ),
        (
            SR,
            SR,
            MASK[:1],
            "mask must be a bool tensor of shape [2, 1, 16, 14], got torch.bool [1, 1, 16, 14]; "
            "make one from numbers with mask > 0.5.",
        ),
        (
            SR,
            SR,
            MASK.expand(-1, 3, -1, -1),
            "mask must be a bool tensor of shape [2, 1, 16, 14], got torch.bool [2, 3, 16, 14]; "
            "make one from numbers with mask > 0.5.",
        ),
        (
            SR,
            SR.to("meta"),
            MASK,
            "sr and hr must be on one device, got cpu and meta; move one with .to().",
        ),
        (
            SR,
            SR,
            MASK.to("meta"),
            "mask must be on cpu like the images, got meta; move it with .to().",
        ),
    ],
)
def test_wrong_tensor_raises_before_any_work(sr, hr, mask, sentence):
    for loss in (lambda *t: self_similarity_loss(*t, **SIZES), SelfSimilarityLoss(**SIZES)):
        with pytest.raises(InputError) as caught:
            loss(sr, hr, mask)
        assert str(caught.value) == f"self_similarity_loss: {sentence}"


def test_backend_that_cannot_run_raises_with_the_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backends, "_is_installed", lambda package: package != "numba")
    with pytest.raises(InputError) as caught:
        self_similarity_loss(SR, SR, MASK, **SIZES, backend="cpu")
    assert str(caught.value) == (
        "self_similarity_loss: backend 'cpu' cannot run because numba is not installed (pip install numba); "
        "pass backend='auto' or 'eager'."
    )
    with pytest.raises(InputError) as caught:
        self_similarity_loss(SR, SR, MASK, **SIZES, backend="triton")
    assert str(caught.value) == (
        "self_similarity_loss: backend 'triton' cannot run because the tensor is on cpu, not on a GPU that Triton "
        "supports; pass backend='auto' or 'eager'."
    )


class TestChooseBackend:
    def test_on_cpu_auto_is_cpu_and_without_numba_eager(self, monkeypatch):
        monkeypatch.setattr(backends, "_is_installed", lambda package: True)
        assert backends.choose("x", "auto", SR) == "cpu"
        monkeypatch.setattr(backends, "_is_installed", lambda package: False)
        assert backends.choose("x", "auto", SR) == "eager"

    def test_on_another_device_auto_is_triton_or_eager(self, monkeypatch):
        image = SR.to("meta")
        monkeypatch.setattr(backends, "_is_installed", lambda package: True)
        assert backends.choose("x", "auto", image) == "eager"
        monkeypatch.setattr(backends, "_TRITON_DEVICES", ("meta",))
        monkeypatch.setattr(backends, "_why_triton_fails", lambda: None)
        assert backends.choose("x", "auto", image) == "triton"

    def test_auto_never_uses_the_interpreter(self, monkeypatch):
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr(backends, "_is_installed", lambda package: package == "triton")
        monkeypatch.setattr(backends, "_why_triton_fails", lambda: None)
        assert backends.choose("x", "triton", SR) == "triton"
        assert backends.choose("x", "auto", SR) == "eager"

    def test_operator_with_fewer_backends(self, monkeypatch):
        monkeypatch.setattr(backends, "_is_installed", lambda package: True)
        assert backends.choose("x", "auto", SR, ("triton", "eager")) == "eager"
        with pytest.raises(InputError, match=r"x: backend must be one of auto, eager, got 'cpu'"):
            backends.choose("x", "cpu", SR, ("eager",))

    def test_missing_packages_are_the_reason(self, monkeypatch):
        monkeypatch.setattr(backends, "_is_installed", lambda package: False)
        assert backends.why_not_triton(SR) == "triton is not installed (it comes with torch on Linux)"
        assert backends.why_not_cpu(SR.to("meta")) == "numba is not installed (pip install numba)"
        assert backends.why_not_eager(SR) is None


@pytest.mark.parametrize(
    "counts",
    [torch.zeros(2, 14, dtype=torch.int64), torch.zeros(2, 16), torch.zeros(2, 16, dtype=torch.int64, device="meta")],
    ids=["size", "dtype", "device"],
)
def test_row_counts_must_fit_the_mask_and_be_on_the_host(counts):
    sentence = (
        r"^self_similarity_loss: row_counts must be integers \[2, 16\] on the CPU, got .*; pass mask\.sum\(\(1, 3\)\)"
    )
    with pytest.raises(InputError, match=sentence):
        self_similarity_loss(SR, SR, MASK, row_counts=counts, **SIZES)
