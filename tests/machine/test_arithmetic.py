"""How a GPU computes: PyTorch's global states inside the context, and those of the user after it."""

import os

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
