"""What `import selfsr` may load, and the order of imports between rooms."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "selfsr"

# Packages that only the trainer and optional backends need.
FORBIDDEN = {
    "triton", "numba", "llvmlite", "yaml", "PIL", "accelerate", "torchvision", "pydantic", "spandrel", "typer", "rich",
    "safetensors", "cv2", "jinja2", "psutil", "skimage", "scipy", "torchmetrics", "tensorboard", "pytorch_optimizer",
}  # fmt: skip

# The rooms of the losses import torch, the standard library and each other.
LOSSES_SIDE = ("__init__.py", "errors.py", "_version.py", "_ops", "masks.py", "selfsim", "pacing", "losses")
# Imported inside functions, when a backend or a file needs them.
LAZY = {"numba", "triton", "llvmlite", "numpy", "safetensors"}


def in_fresh_interpreter(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    """Return the modules that `import selfsr` loads after `import torch`; it prints nothing."""
    code = (
        "import sys, torch; before = set(sys.modules); import selfsr; added = set(sys.modules) - before\n"
        # The version is read from the metadata, and not at the import.
        "import importlib.metadata\n"
        "assert '__version__' not in vars(selfsr) and not hasattr(selfsr, 'typo')\n"
        "from selfsr import __version__\n"
        "assert __version__ == selfsr.__version__ == importlib.metadata.version('selfsr')\n"
        "print(*sorted(added))"
    )
    return in_fresh_interpreter(code).split()


def test_import_selfsr_loads_only_torch_and_prints_nothing(loaded: list[str]):
    packages = {name.split(".")[0] for name in loaded}
    assert "selfsr" in packages
    assert not packages & FORBIDDEN
    assert packages - {"selfsr"} <= set(sys.stdlib_module_names)


def test_import_selfsr_loads_no_backend_and_no_trainer(loaded: list[str]):
    loaded = [name for name in loaded if name.startswith("selfsr")]
    assert loaded
    assert not [name for name in loaded if name.endswith((".eager", ".cpu", ".triton", ".reference"))]
    for name in loaded:
        parts = name.split(".")
        assert len(parts) == 1 or parts[1] in {name.removesuffix(".py") for name in LOSSES_SIDE}, name


# Hides all third parties but torch from a fresh interpreter.
TORCH_ONLY = (
    "import sys, torch\n"
    "class Blocker:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    f"        if name.split('.')[0] in {FORBIDDEN!r}: raise ImportError(name)\n"
    "sys.meta_path.insert(0, Blocker())\n"
    "import importlib.util\n"
    "real = importlib.util.find_spec\n"
    f"importlib.util.find_spec = lambda name, *a: None if name in {FORBIDDEN!r} else real(name, *a)\n"
    "sr = torch.rand(1, 3, 16, 16, requires_grad=True)\n"
    "hr = torch.rand(1, 3, 16, 16)\n"
)


def test_losses_run_with_only_torch():
    code = (
        "from selfsr import SelfSimilarityLoss\n"
        "loss = SelfSimilarityLoss()(sr, hr)\n"
        "loss.backward()\n"
        "assert loss.item() > 0\n"
        # It takes more than a second and 150 MiB, and only compilation needs it.
        "assert 'torch._dynamo' not in sys.modules\n"
        "from selfsr import losses\n"
        "from torch.nn.functional import avg_pool2d\n"
        "pixels = [getattr(losses, name)(sr, hr, reduction='mean') for name in ('l1', 'l2', 'charbonnier')]\n"
        "more = [losses.artifact_loss(sr, hr), losses.best_buddy_loss(sr, hr), losses.focal_frequency_loss(sr, hr)]\n"
        "more += [losses.checkerboard_loss(sr, hr, period_px=2)]\n"
        "more += [losses.gradient_loss(sr, hr), losses.gradient_branch_loss(sr, hr), losses.ssim_loss(sr, hr)]\n"
        "more += [losses.total_variation(sr), losses.rank_loss(sr, lambda x: x.mean((1, 2, 3)))]\n"
        "more += [losses.back_projection_loss(sr, avg_pool2d(hr, 2), lambda x: avg_pool2d(x, 2))]\n"
        "vgg = {'features.0.weight': torch.randn(64, 3, 3, 3), 'features.0.bias': torch.zeros(64)}\n"
        "more += [losses.PerceptualLoss({'conv1_1': 1.0}, weights=vgg)(sr, hr)]\n"
        "for loss in pixels + more:\n"
        "    (slope,) = torch.autograd.grad(loss, sr)\n"
        "    assert loss.item() > 0 and slope.abs().max() > 0\n"
    )
    assert in_fresh_interpreter(TORCH_ONLY + code) == ""


def python_files(entry: str) -> list[Path]:
    path = PACKAGE / entry
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def list_imports(file: Path) -> list[tuple[int, str]]:
    """Return the line and the module of each import of a file, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            assert node.module
            modules = [f"selfsr.{alias.name}" for alias in node.names] if node.module == "selfsr" else [node.module]
            names += [(node.lineno, name) for name in modules]
    return names


@pytest.mark.parametrize("entry", LOSSES_SIDE)
def test_loss_modules_import_only_torch_and_each_other(entry):
    files = python_files(entry)
    assert files
    allowed = {name.removesuffix(".py") for name in LOSSES_SIDE}
    for file in files:
        for line, name in list_imports(file):
            first, *rest = name.split(".")
            if first == "selfsr":
                assert rest, f"{file}:{line} imports the package from inside"
                assert rest[0] in allowed, f"{file}:{line} imports {name} against the order"
            else:
                assert first in {"torch"} | LAZY | set(sys.stdlib_module_names), f"{file}:{line}: {name}"


def rooms() -> list[str]:
    """Return the rooms of the package in the order of the list in CONTRIBUTING.md."""
    page = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    firsts = re.findall(r"^\| (`.*?) \|", page, flags=re.MULTILINE)
    return [name.removesuffix("/") for first in firsts for name in re.findall(r"`(.*?)`", first)]


def room_of(name: str) -> str:
    """Return the room of a dotted name inside the package; a public name belongs to `__init__.py`."""
    first = name.split(".")[1]
    if (PACKAGE / first).is_dir():
        return first
    return f"{first}.py" if (PACKAGE / f"{first}.py").exists() else "__init__.py"


def test_room_table_lists_every_room_once():
    present = [path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))]
    assert sorted(rooms()) == sorted(present)


@pytest.mark.parametrize("room", rooms())
def test_room_imports_only_rooms_before_it(room):
    order = rooms()
    for file in python_files(room):
        for line, name in list_imports(file):
            if name.startswith("selfsr."):
                target = room_of(name)
                assert order.index(target) <= order.index(room), f"{file}:{line} imports {name} against the order"


def file_of(name: str) -> Path | None:
    """Return the file of a module, or of the module that defines a dotted name."""
    parts = name.split(".")[1:]
    while parts:
        path = PACKAGE.joinpath(*parts)
        if path.with_suffix(".py").exists():
            return path.with_suffix(".py")
        if (path / "__init__.py").exists():
            return path / "__init__.py"
        parts.pop()
    return None


def imports_between_files() -> dict[Path, set[Path]]:
    """Return the files of the package that each file imports, except for type checking only."""
    graph: dict[Path, set[Path]] = {}
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node not in for_types:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        files = {file_of(name) for name in names if name.startswith("selfsr.")}
        graph[file] = {path for path in files if path is not None and path != file}
    return graph


def test_files_do_not_import_each_other_in_a_circle():
    graph = {str(file): {str(path) for path in paths} for file, paths in imports_between_files().items()}
    # Raises CycleError, which names the files.
    assert list(TopologicalSorter(graph).static_order())


def test_only_four_rooms_import_the_data():
    importers = {
        room_of("selfsr." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts))
        for file, paths in imports_between_files().items()
        if any(path.is_relative_to(PACKAGE / "data") for path in paths)
    }
    assert importers - {"data"} <= {"cli", "recipe", "training", "bench"}


def test_init_files_contain_exports_only():
    exports = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    for file in PACKAGE.rglob("__init__.py"):
        if file.parent.name == "cli":  # registers the commands
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            # `if not TYPE_CHECKING` around an import hides it from type checkers.
            statements = node.body if isinstance(node, ast.If) and not node.orelse else [node]
            for statement in statements:
                assert isinstance(statement, exports), f"{file}:{statement.lineno}"
