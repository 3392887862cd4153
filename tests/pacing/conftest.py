"""Images, backends and tolerances of the tests of the self-paced operator."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from selfsr._ops import backends

# How far a backend may be from the definition in float64; docs/numerics.md gives the reason of each.
TOLERANCES = {
    torch.float64: SimpleNamespace(ssim=1e-11, value=1e-12, gradient=1e-9),
    torch.float32: SimpleNamespace(ssim=2e-6, value=6e-6, gradient=6e-6),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        only = metafunc.config.getoption("--backend")
        on_cpu = metafunc.config.getoption("--device") == "cpu"
        metafunc.parametrize("backend", [only] if only else ["eager", "cpu"] if on_cpu else ["eager", "triton"])


@pytest.fixture(autouse=True)
def _can_run(request: pytest.FixtureRequest, device: torch.device) -> None:
    if "backend" in request.fixturenames:
        reason = backends.WHY_NOT[request.getfixturevalue("backend")](torch.empty(0, device=device))
        if reason is not None:
            pytest.skip(reason)


@pytest.fixture
def tolerance() -> Callable[[torch.dtype], SimpleNamespace]:
    return TOLERANCES.__getitem__


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def pair(device: torch.device) -> Callable[..., tuple[Tensor, Tensor]]:
    """Make an image with flat, smooth and busy parts, and a blurred and noisy version of it."""

    def make(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        n, c, h, w = shape
        i, j = torch.meshgrid(torch.arange(h) / max(h, 8), torch.arange(w) / max(w, 8), indexing="ij")
        hr = 0.5 + 0.4 * torch.sin(9 * i + 5 * i * j)[None, None] * torch.rand(n, c, 1, 1, generator=generator)
        hr = torch.where((i + j < 0.5) | (torch.rand(n, c, h, w, generator=generator) < 0.5), hr, hr * 0.6)
        sr = 0.7 * hr + 0.3 * hr.roll((1, 1), (2, 3)) + 0.03 * torch.randn(n, c, h, w, generator=generator)
        return sr.to(device, dtype), hr.to(device, dtype)

    return make
