"""Compiling the kernels of a run's losses before its first step, with stand-ins for kernels and GPU."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from selfsr._ops import backends
from selfsr._ops.launches import Launch
from selfsr.errors import InputError
from selfsr.recipe import Recipe, parse_recipe
from selfsr.training import kernels


class FakeKernel:
    """A kernel that compiles, or fails."""

    def __init__(self, error: str | None = None):
        self.error = error
        self.compiled = 0

    def warmup(self, **arguments: Any) -> None:
        if self.error:
            raise RuntimeError(self.error)
        self.compiled += 1


def make_recipe(**term: Any) -> Recipe:
    terms = {"pixel": {"kind": "l1"}, "similarity": {"kind": "self_similarity", **term}}
    return parse_recipe(
        {
            "name": "x", "steps": 1, "steps_per_epoch": 1, "scale": 2, "batch": 1, "crop_px": 32,
            "network": {"kind": "edsr"}, "data": {"kind": "folder", "hr": "."},
            "method": {"kind": "regression", "terms": terms}, "optimizers": {"g": {"kind": "adam", "lr": 1e-4}},
            "schedule": {"kind": "constant"},
        },
        "x",
    )  # fmt: skip


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One process with a GPU, for which the meta device stands."""
    monkeypatch.setattr(backends, "_TRITON_DEVICES", ("meta",))
    monkeypatch.setattr(backends, "_is_installed", lambda package: True)
    monkeypatch.setattr(backends, "_why_triton_fails", lambda: None)
    monkeypatch.setattr(backends, "_refused", {})
    return SimpleNamespace(
        device=torch.device("meta"),
        num_processes=1,
        is_local_main_process=True,
        local_main_process_first=nullcontext,
    )


def list_only(monkeypatch: pytest.MonkeyPatch, kernel: FakeKernel) -> None:
    monkeypatch.setattr(kernels, "list_step_launches", lambda *arguments: [Launch(kernel, {})] * 2)


def test_all_kernels_are_compiled_and_the_bar_says_so(monkeypatch, accelerator, capsys) -> None:
    kernel = FakeKernel()
    list_only(monkeypatch, kernel)
    kernels.prepare_kernels(make_recipe(), accelerator)
    assert kernel.compiled == 2
    assert "compiling GPU kernels 2/2" in capsys.readouterr().err


def test_a_kernel_that_fails_leaves_the_run_to_eager_with_the_reason(monkeypatch, accelerator, capsys) -> None:
    list_only(monkeypatch, FakeKernel("Failed to find\nC compiler."))
    kernels.prepare_kernels(make_recipe(), accelerator)
    reason = "its kernels do not compile here (Failed to find C compiler.)"
    assert f"GPU kernels: {reason}; the losses use the backend eager, which is slower" in capsys.readouterr().err
    assert backends.choose("x", "auto", torch.empty(0, device="meta")) == "eager"
    # The second run of the process does not try again.
    list_only(monkeypatch, FakeKernel("never called"))
    kernels.prepare_kernels(make_recipe(), accelerator)
    assert backends.why_not_triton(torch.empty(0, device="meta")) == reason


def test_a_kernel_that_fails_in_another_process_leaves_all_to_eager(monkeypatch, accelerator) -> None:
    list_only(monkeypatch, FakeKernel())
    monkeypatch.setattr(kernels, "share_with_all", lambda make: [make(), "no compiler there"])
    kernels.prepare_kernels(make_recipe(), accelerator)
    reason = "its kernels do not compile here (no compiler there)"
    assert backends.why_not_triton(torch.empty(0, device="meta")) == reason


def test_a_kernel_that_fails_stops_a_run_that_asks_for_triton(monkeypatch, accelerator) -> None:
    list_only(monkeypatch, FakeKernel("broken"))
    with pytest.raises(InputError) as caught:
        kernels.prepare_kernels(make_recipe(backend="triton"), accelerator)
    assert str(caught.value) == (
        "method.terms.similarity: backend 'triton' cannot run because its kernels do not compile here (broken); "
        "set backend to auto or eager."
    )


def test_nothing_is_listed_on_a_cpu(monkeypatch, accelerator) -> None:
    monkeypatch.setattr(kernels, "list_step_launches", lambda *arguments: pytest.fail("listed"))
    accelerator.device = torch.device("cpu")
    kernels.prepare_kernels(make_recipe(), accelerator)


def test_losses_without_operators_have_no_kernels() -> None:
    recipe = make_recipe()
    del recipe.method.terms["similarity"]
    assert kernels.list_step_launches(recipe, torch.device("cpu"), 1) == []
