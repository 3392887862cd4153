"""Runs the examples of all docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

# Modules of public functions, each with an example at least.
PUBLIC = [
    "selfsr.errors",
    "selfsr.masks",
    "selfsr.selfsim.loss",
    "selfsr.pacing.loss",
    "selfsr.losses.artifact",
    "selfsr.losses.best_buddy",
    "selfsr.losses.checkerboard",
    "selfsr.losses.frequency",
    "selfsr.losses.gradient",
    "selfsr.losses.perceptual",
    "selfsr.losses.ranking",
    "selfsr.losses.structural",
    "selfsr.losses.variation",
]


def modules_with_examples() -> list[str]:
    files = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for path in files]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_docstrings(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


def test_public_modules_have_examples() -> None:
    assert set(PUBLIC) <= set(modules_with_examples())
