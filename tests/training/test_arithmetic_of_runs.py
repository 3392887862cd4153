"""Each precision of a recipe sets the arithmetic of its steps; evaluations compute in true float32."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.benchmark import evaluate_set, make_bicubic_upscaler
from selfsr.machine.arithmetic import Arithmetic
from selfsr.recipe import parse_recipe
from selfsr.training import assemble as assembly
from selfsr.training.loop import fit


def read_states() -> tuple[bool, bool, bool, bool]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("precision", "deterministic", "expected"),
    [
        ("float32", False, (False, False, True, False)),
        ("bfloat16", False, (True, False, True, False)),
        ("tf32", False, (True, True, True, False)),
        ("float32", True, (False, False, False, True)),
    ],
)
def test_step_computes_as_the_recipe_says(
    precision: str,
    deterministic: bool,
    expected: tuple[bool, ...],
    tiny: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assembly, "choose_precision", lambda name, device: name)  # as on a GPU
    tiny |= {"steps": 1, "schedule": {"kind": "constant"}}
    recipe = parse_recipe({**tiny, "precision": precision, "deterministic": deterministic}, "x")
    seen: list[tuple[bool, ...]] = []
    original = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *args: seen.append(read_states()) or original(*args))
    before = read_states()
    assert fit(recipe, tmp_path / "run", device="cpu")
    assert seen == [expected]
    assert read_states() == before


def test_operator_that_does_not_repeat_is_one_sentence(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrite(sr: Tensor, hr: Tensor, **_: object) -> Tensor:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        return (sr - hr).abs().mean()

    monkeypatch.setattr("selfsr.terms.pixel.l1", overwrite)
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    tiny |= {"steps": 1, "schedule": {"kind": "constant"}, "evaluate": None}
    assert fit(parse_recipe(tiny, "x"), tmp_path / "free", device="cpu")
    with pytest.raises(InputError) as error:
        fit(parse_recipe({**tiny, "deterministic": True}, "x"), tmp_path / "strict", device="cpu")
    text = str(error.value)
    assert text.startswith(
        "recipe: deterministic needs operators that repeat bit for bit on cpu, got one that does not ("
    )
    assert text.endswith("); set deterministic to false, or remove the loss or network that uses it.")
    assert "put_" in text


def test_evaluation_computes_in_true_float32(photos: Path) -> None:
    seen = []
    bicubic = make_bicubic_upscaler(2)

    def upscale(lr: Tensor) -> Tensor:
        seen.append(read_states())
        return bicubic(lr)

    paths = sorted((photos / "test").iterdir())[:1]
    with Arithmetic(tf32="all", benchmark=True).use():
        evaluate_set(upscale, "x", paths, scale=2, device=torch.device("cpu"))
        assert read_states() == (True, True, True, False)
    assert set(seen) == {(False, False, False, False)}
