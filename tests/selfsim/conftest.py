"""Run every test of the operator that takes `backend` once for each backend."""

import pytest
import torch
from selfsim_cases import CASES, TINY, Case

from interpreter import is_interpreted
from selfsr._ops import backends


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = metafunc.fixturenames
    only = metafunc.config.getoption("--backend")
    if "backend" in names:
        on_cpu = metafunc.config.getoption("--device") == "cpu"
        default = ["eager", "cpu"] if on_cpu else ["eager", "triton"]
        metafunc.parametrize("backend", [only] if only else default)
    if "case" in names:
        # The interpreter takes seconds for a kernel of microseconds.
        metafunc.parametrize("case", TINY if only == "triton" and is_interpreted() else CASES, ids=str)


@pytest.fixture(autouse=True)
def _can_run(request: pytest.FixtureRequest, device: torch.device) -> None:
    if "backend" in request.fixturenames:
        reason = backends.WHY_NOT[request.getfixturevalue("backend")](torch.empty(0, device=device))
        if reason is not None:
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _tall_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreted operations cost the same whatever their size, so let tiles have more rows than on a GPU."""
    if is_interpreted():
        from selfsr.selfsim.triton import packing

        monkeypatch.setattr(packing, "ROWS", 32)
        monkeypatch.setattr(packing, "ENOUGH_PROGRAMS", 64)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest, device: torch.device) -> torch.dtype:
    if request.param == torch.float64 and device.type == "mps":
        pytest.skip("this device has no float64")
    return request.param


@pytest.fixture
def small() -> Case:
    """One case for tests of behavior, where the sizes do not matter."""
    return TINY[0]


@pytest.fixture
def large(request: pytest.FixtureRequest) -> Case:
    """One case with the published sizes, or a tiny one if the backend is interpreted."""
    slow = request.getfixturevalue("backend") == "triton" and is_interpreted()
    return TINY[0] if slow else Case(2, 3, 24, 20, 25, 9, 0.004)
