"""Options and fixtures for the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import interpreter

pytest_plugins = ["factories"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device that the operator tests run on (cpu, cuda, mps)")
    parser.addoption("--backend", default=None, help="run the operator tests for this backend only")


def pytest_configure() -> None:
    if interpreter.interpreted():
        interpreter.quicken()


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute many small things on one thread, as fast as on two, and far faster where others use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `torch.empty*` returns with NaN, so that a value read before it is written shows."""

    def poisoned(make):
        def wrapper(*args, **kwargs):
            tensor = make(*args, **kwargs)
            if tensor.is_floating_point() and tensor.device.type != "meta":
                tensor.fill_(float("nan"))
            return tensor

        return wrapper

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))


def _photos(*parts: str) -> list[Path]:
    folder = SHARED_DATA.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"needs the photos of {'/'.join(parts)}, which are kept beside the checkout and are not here")
    return sorted(p for p in folder.iterdir() if p.suffix == ".png")


@pytest.fixture(scope="session")
def set5() -> list[Path]:
    return _photos("benchmark", "Set5")


@pytest.fixture(scope="session")
def set14() -> list[Path]:
    return _photos("benchmark", "Set14")


@pytest.fixture(scope="session")
def t91() -> list[Path]:
    return _photos("train", "t91")
