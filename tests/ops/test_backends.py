"""Why the Triton backend cannot run: versions that are too old or broken, and kernels that do not compile."""

import importlib.util
import os
import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from selfsr._ops import backends
from selfsr.errors import InputError
from selfsr.pacing import ssim_map

META = torch.empty(0, device="meta")


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch):
    """Let the meta device stand for a GPU."""
    monkeypatch.setattr(backends, "_TRITON_DEVICES", ("meta",))
    monkeypatch.setattr(backends, "_is_installed", lambda package: True)
    monkeypatch.setattr(backends, "_refused", {})
    backends._why_triton_fails.cache_clear()
    yield
    backends._why_triton_fails.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = ModuleType("triton")
    module.__version__ = version  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "triton", module)


@pytest.mark.parametrize("version", ["3.2.0", "2.1.0", "3.2.0+git1234"])
def test_older_triton_is_the_reason_and_auto_is_eager(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, version)
    assert backends.why_not_triton(META) == (
        f"triton is {version}, and the kernels need 3.3, which torch 2.7 has (pip install 'torch>=2.7')"
    )
    assert backends.choose("x", "auto", META) == "eager"


@pytest.mark.parametrize("version", ["3.3.0", "3.8.0", "3.10.1", "4.0.0+git1234"])
def test_newer_triton_is_used(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, version)
    assert backends.why_not_triton(META) is None
    assert backends.choose("x", "auto", META) == "triton"


def test_triton_that_cannot_be_imported_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    reason = backends.why_not_triton(META)
    assert reason is not None
    assert reason.startswith("triton cannot be imported (import of triton halted")


def test_a_gpu_that_is_too_old_is_the_reason_and_auto_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "3.8.0")
    monkeypatch.setattr(backends, "_TRITON_DEVICES", ("cuda",))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda", 0), is_cuda=True)
    assert backends.why_not_triton(on_gpu) == "cuda:0 has compute capability 6.1, Triton needs 7.0"
    assert backends.choose("x", "auto", on_gpu) == "eager"
    with pytest.raises(InputError, match=r"^x: backend 'triton' cannot run because cuda:0 has compute capability 6\.1"):
        backends.choose("x", "triton", on_gpu)


def test_a_refused_backend_does_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "3.8.0")
    backends.refuse("triton", "its kernels do not compile here (no C compiler)")
    assert backends.why_not_triton(META) == "its kernels do not compile here (no C compiler)"
    assert backends.choose("x", "auto", META) == "eager"


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs Triton as it is installed, whose kernels do not run on tensors of a CPU",
)
def test_an_operator_whose_kernels_fail_runs_in_eager_and_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(caller: str, requested: str, tensor: torch.Tensor) -> str:
        if "triton" not in backends._refused:
            return "triton"
        if requested == "triton":
            raise InputError(f"{caller}: {backends._refused['triton']}")
        return "eager"

    x, y = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = ssim_map(x, y, backend="eager")
    monkeypatch.setattr(backends, "choose", choose)
    told = "^backend 'triton' cannot run because its kernels do not compile here .*; eager runs instead, slower$"
    with pytest.warns(UserWarning, match=told):
        assert torch.equal(ssim_map(x, y), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(ssim_map(x, y), expected)
    monkeypatch.setattr(backends, "_refused", {})
    with pytest.raises(InputError, match="its kernels do not compile here"):
        ssim_map(x, y, backend="triton")
