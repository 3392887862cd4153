"""Options and fixtures for the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import interpreter
from chromium import CHROMIUM, Chromium

pytest_plugins = ["factories"]

# The option --data-root replaces it.
DEFAULT_DATA_ROOT = Path(__file__).resolve().parents[2] / "shared" / "data"
# The option --weights-root replaces it.
DEFAULT_WEIGHTS_ROOT = DEFAULT_DATA_ROOT.with_name("weights")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device that the operator tests run on (cpu, cuda, mps)")
    parser.addoption("--backend", default=None, help="run the operator tests for this backend only")
    parser.addoption(
        "--data-root",
        type=Path,
        default=DEFAULT_DATA_ROOT,
        help="folder with benchmark/Set5/*.png, benchmark/Set14/*.png and train/t91/*.png; "
        "without it, tests of published scores are skipped",
    )
    parser.addoption(
        "--weights-root",
        type=Path,
        default=DEFAULT_WEIGHTS_ROOT,
        help="folder with published weights: hub/checkpoints/*.pth of torchvision, metrics/niqe_pris_params.npz and "
        "metrics/examples/*.png; without it, tests with published weights are skipped",
    )


def pytest_configure() -> None:
    if interpreter.is_interpreted():
        interpreter.speed_up_interpreter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests, unless -m names them. With -m in pyproject.toml another -m would bring them back."""
    if "slow" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Return headless Chromium; tests that use it have the mark `browser`."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome on the PATH")
    try:
        chromium = Chromium(tmp_path_factory.mktemp("profile"))
    except OSError as error:
        pytest.skip(f"the browser does not start here: {error}")
    yield chromium
    chromium.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread: for small tensors as fast as two, and much faster while other programs use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the tensors of `torch.empty*` with NaN, so that reading a value before writing it shows."""

    def fill_with_nan(create):
        def wrapper(*args, **kwargs):
            tensor = create(*args, **kwargs)
            if tensor.is_floating_point() and tensor.device.type != "meta":
                tensor.fill_(float("nan"))
            return tensor

        return wrapper

    monkeypatch.setattr(torch, "empty", fill_with_nan(torch.empty))
    monkeypatch.setattr(torch, "empty_like", fill_with_nan(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", fill_with_nan(torch.Tensor.new_empty))


def _list_photos(config: pytest.Config, *parts: str) -> list[Path]:
    folder = Path(config.getoption("--data-root")).joinpath(*parts)
    photos = sorted(folder.glob("*.png"))
    if not photos:
        pytest.skip(f"needs {'/'.join(parts)}/*.png; pass the folder that contains it with --data-root DIR")
    return photos


@pytest.fixture(scope="session")
def set5(request: pytest.FixtureRequest) -> list[Path]:
    return _list_photos(request.config, "benchmark", "Set5")


@pytest.fixture(scope="session")
def set14(request: pytest.FixtureRequest) -> list[Path]:
    return _list_photos(request.config, "benchmark", "Set14")


@pytest.fixture(scope="session")
def t91(request: pytest.FixtureRequest) -> list[Path]:
    return _list_photos(request.config, "train", "t91")


@pytest.fixture
def torch_home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with published weights of AlexNet and VGG16 and of metrics; TORCH_HOME is this folder."""
    folder = Path(request.config.getoption("--weights-root"))
    if not (folder / "hub" / "checkpoints").is_dir():
        pytest.skip("needs hub/checkpoints/*.pth; pass the folder that contains it with --weights-root DIR")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    return folder
