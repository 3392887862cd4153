"""Tests of all backends that say most about Triton for the seconds that the interpreter takes.

On a GPU they run for this backend anyway. By hand, all of them interpreted (some minutes):

    TRITON_INTERPRET=1 pytest tests/selfsim --backend triton
"""

import pytest
import test_selfsim_exactness as exactness
import test_selfsim_properties as properties
import test_selfsim_torch as integration
import torch
from selfsim_cases import TINY, Case, images
from torch import Tensor

pytestmark = pytest.mark.triton


def make_pair(case: Case, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    sr, hr, mask = images(case)
    return sr.float().to(device), hr.float().to(device), mask.to(device)


def test_graph_and_its_gradient_match_the_definition(device: torch.device) -> None:
    exactness.test_graph_and_gradient_match_the_definition(TINY[2], "triton", torch.float32, device)


def test_nan_stays_in_its_image(device: torch.device) -> None:
    properties.test_nan_or_infinity_stays_in_its_image(float("nan"), "triton", device)


def test_max_pixels_changes_nothing(device: torch.device) -> None:
    pair = make_pair(Case(2, 3, 10, 12, 7, 3, 0.05, mask="random"), device)
    properties.test_max_pixels_above_the_mask_changes_nothing(5, pair, "triton")


def test_compile_sees_one_opaque_node(device: torch.device) -> None:
    integration.test_compile_sees_one_opaque_node(True, make_pair(TINY[0], device), "triton")
