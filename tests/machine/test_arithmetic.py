"""How a GPU computes: PyTorch's global states inside the context, and those of the user after it."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from selfsr.errors import InputError
from selfsr.machine.arithmetic import TRUE_FLOAT32, Arithmetic
from selfsr.machine.device import choose_precision


def read_states() -> dict[str, object]:
    cudnn = torch.backends.cudnn
    return {
        "cudnn tf32": cudnn.allow_tf32,
        "matmul tf32": torch.backends.cuda.matmul.allow_tf32,
        "benchmark": cudnn.benchmark,
        "cudnn deterministic": cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
    }


@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        (TRUE_FLOAT32, {}),
        (Arithmetic(tf32="convolutions", benchmark=True), {"cudnn tf32": True, "benchmark": True}),
        (Arithmetic(tf32="all"), {"cudnn tf32": True, "matmul tf32": True}),
        (Arithmetic(deterministic=True, benchmark=True), {"cudnn deterministic": True, "deterministic": True}),
    ],
)
def test_states_inside_and_after(arithmetic: Arithmetic, expected: dict[str, bool]) -> None:
    before = read_states()
    with arithmetic.use():
        assert read_states() == {**dict.fromkeys(before, False), **expected}
    assert read_states() == before


def test_states_of_the_user_return_after_an_error() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = read_states()
        with pytest.raises(ValueError, match="inside"), TRUE_FLOAT32.use():
            raise ValueError("inside")
        assert read_states() == before
        assert before["warn only"]
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture
def precisions() -> Iterator[list[Any]]:
    """The places of `fp32_precision`, which are as before after the test."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("PyTorch before 2.9 has no fp32_precision")
    cudnn: Any = torch.backends.cudnn
    places: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, torch.backends]
    yield places
    torch.backends.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")


def read_precisions(places: list[Any]) -> list[str]:
    return [place.fp32_precision for place in places]


def test_a_program_that_mixes_old_and_new_flags_keeps_its_own(precisions: list[Any]) -> None:
    matmul, conv, *_ = precisions
    matmul.fp32_precision, conv.fp32_precision = "tf32", "ieee"  # PyTorch refuses to read its older flags now
    with pytest.raises(RuntimeError):
        _ = torch.backends.cuda.matmul.allow_tf32
    before = read_precisions(precisions)
    with TRUE_FLOAT32.use():
        assert read_precisions(precisions)[:3] == ["ieee"] * 3
        assert torch.get_float32_matmul_precision() == "highest"
    assert read_precisions(precisions) == before
    with Arithmetic(tf32="all").use():
        assert read_precisions(precisions)[:3] == ["tf32"] * 3
    assert read_precisions(precisions) == before


def test_tf32_for_everything_does_not_reach_true_float32(precisions: list[Any]) -> None:
    torch.backends.fp32_precision = "tf32"
    torch.set_float32_matmul_precision("medium")
    before = read_precisions(precisions)
    with TRUE_FLOAT32.use():
        assert read_precisions(precisions)[:3] == ["ieee"] * 3
    assert read_precisions(precisions) == before
    assert torch.get_float32_matmul_precision() == "medium"


def test_nested_evaluation_returns_to_the_training() -> None:
    with Arithmetic(tf32="all", benchmark=True).use():
        with TRUE_FLOAT32.use():
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32


def test_cublas_gets_a_workspace_of_fixed_size_unless_the_user_chose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with TRUE_FLOAT32.use():
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    for before, after in ((None, ":4096:8"), (":16:8", ":16:8")):
        if before is not None:
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
        with Arithmetic(deterministic=True).use():
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == after


def test_deterministic_refuses_an_operator_that_does_not_repeat() -> None:
    values, places = torch.zeros(3), torch.tensor([0, 0])
    with Arithmetic(deterministic=True).use(), pytest.raises(RuntimeError, match="determinis"):
        values.put_(places, torch.tensor([1.0, 2.0]))  # the one operator that may not repeat on a CPU


def test_tf32_needs_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as error:
        choose_precision("tf32", torch.device("cpu"))
    assert str(error.value) == (
        "precision: expected a GPU with TF32 units for tf32, got cpu: only NVIDIA GPUs have them; use float32."
    )
    for capability, problem in (((7, 5), "compute capability 7.5 has none"), ((8, 0), None)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, pair=capability: pair)
        monkeypatch.setattr(torch.version, "hip", None)
        if problem is None:
            assert choose_precision("tf32", torch.device("cuda")) == "tf32"
        else:
            with pytest.raises(InputError, match=problem):
                choose_precision("tf32", torch.device("cuda"))
