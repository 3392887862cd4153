"""The notebooks in examples/ run from top to bottom, and are stored without outputs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))


def read_cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_notebooks_are_stored_without_outputs() -> None:
    assert NOTEBOOKS
    codes = [cell for path in NOTEBOOKS for cell in read_cells(path) if cell["cell_type"] == "code"]
    assert codes
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in codes)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    codes = ["".join(cell["source"]) for cell in read_cells(path) if cell["cell_type"] == "code"]
    checks = (
        "import math\n"
        "assert score(sr)['psnr_y'] > score(bicubic)['psnr_y'] + 1\n"
        "assert len(history) == steps and all(math.isfinite(v) for losses in history for v in losses.values())\n"
        "assert score(small)['psnr_y'] > 20\n"
    )
    program = "\n\n".join([*codes, checks])
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
