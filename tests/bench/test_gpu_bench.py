"""The benchmark for GPUs: its stages rehearsed on the CPU, what a failing stage leaves, its kit and its page."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu
import gpu_kit
import gpu_page

ROOT = Path(__file__).resolve().parents[2]
# Stages that take seconds on a CPU; `python bench/gpu.py --rehearse` runs all.
QUICK = ["machine", "values", "data", "counters"]


def stages(*names: str) -> list[gpu.Stage]:
    return [stage for stage in gpu.STAGES if stage.name in names]


@pytest.mark.slow
def test_quick_stages_run_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the photo to measure on comes with scikit-image")
    report = gpu.run_stages(stages(*QUICK), tmp_path, "cpu", True, 600.0, None)
    assert json.loads((tmp_path / "results.json").read_text()) == report
    ended = {name: entry["status"] for name, entry in report["stages"].items()}
    assert ended == {"machine": "done", "values": "done", "data": "done", "counters": "skipped: needs CUDA"}
    assert report["stages"]["data"]["results"]["crops_device_per_s"] > 0
    assert report["stages"]["machine"]["results"]["copy_gb_per_s"] > 0
    values = report["stages"]["values"]["results"]
    errors = [value for value in values.values() if isinstance(value, dict)]
    assert len(errors) == 4
    assert all(value["good"] for value in errors)
    page = (tmp_path / "gpu.md").read_text()
    assert "say nothing about a GPU" in page
    assert "### values\n\ndone" in page


FAKE_STAGES = """
import json, sys, time
name, path = sys.argv[1], sys.argv[sys.argv.index("--json") + 1]
json.dump({"first": 1.5}, open(path, "w"))
if name == "compile":
    time.sleep(60)
if name == "values":
    json.dump({"first": 1.5, "error": "it broke"}, open(path, "w"))
    sys.exit(1)
"""


def test_results_survive_a_stage_that_hangs_and_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpu_stages.py").write_text(FAKE_STAGES)
    monkeypatch.setattr(gpu, "BENCH", tmp_path)
    monkeypatch.setattr(gpu, "_LEAST_S", 0)
    planned = [gpu.Stage("compile", 3, ""), gpu.Stage("values", 20, ""), gpu.Stage("machine", 20, "")]
    report = gpu.run_stages(planned, tmp_path / "out", "cuda", False, 60.0, None)
    assert [entry["status"] for entry in report["stages"].values()] == ["stopped after 3 s", "failed: it broke", "done"]
    assert all(entry["results"] == {"first": 1.5} for entry in report["stages"].values())
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == report


def test_stages_without_time_left_are_skipped(tmp_path: Path) -> None:
    report = gpu.run_stages(stages("machine"), tmp_path, "cpu", True, 1.0, None)
    assert report["stages"]["machine"]["status"] == "skipped: less than 5 s of 1 s were left"


def test_a_gpu_is_needed_without_rehearse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="a CUDA device was expected, got none; pass --rehearse"):
        gpu.main()


def test_limits_leave_the_usual_stages_within_nine_minutes() -> None:
    """Stages end well before their limits, so that these may add up to a quarter more."""
    assert sum(stage.limit_s for stage in gpu.STAGES) <= 1.25 * 540
    assert len({stage.name for stage in gpu.STAGES}) == len(gpu.STAGES)


class TestKit:
    def test_has_sources_photos_and_a_script(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_kit, "fetch_wheels", lambda *arguments: set())
        gpu_kit.make_kit(tmp_path / "kit", None, "3.12", None)
        for name in ("src/selfsr/__init__.py", "bench/gpu_stages.py", "tests/selfsim", "pyproject.toml", "run.sh"):
            assert (tmp_path / "kit" / name).exists(), name
        assert len(list((tmp_path / "kit" / "photos").iterdir())) == 4
        with pytest.raises(SystemExit, match="must name a new or empty folder"):
            gpu_kit.make_kit(tmp_path / "kit", None, "3.12", None)

    def test_that_is_too_large_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_kit, "fetch_wheels", lambda *arguments: set())
        monkeypatch.setattr(gpu_kit, "LARGEST_BYTES", 10**6)
        with pytest.raises(SystemExit, match="the kit must be below 1 MB"):
            gpu_kit.make_kit(tmp_path / "kit", None, "3.12", None)

    def test_takes_photos_up_to_a_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_kit, "fetch_wheels", lambda *arguments: set())
        monkeypatch.setattr(gpu_kit, "LARGEST_PHOTO_BYTES", 450_000)
        photos = tmp_path / "photos"
        photos.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)  # about 200 kB as PNG
        Image.fromarray(noise[:255]).save(photos / "0.png")
        for name in "abc":
            Image.fromarray(noise).save(photos / f"{name}.png")
        gpu_kit.make_kit(tmp_path / "kit", photos, "3.12", None)
        assert sorted(path.name for path in (tmp_path / "kit" / "photos").iterdir()) == ["a.png", "b.png"]

    def test_refuses_a_folder_without_large_images(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "photos").mkdir()
        Image.new("RGB", (100, 400)).save(tmp_path / "photos" / "small.png")
        with pytest.raises(SystemExit, match="--photos must have PNG or JPEG images of 256 px or more, below 10 MB"):
            gpu_kit.make_kit(tmp_path / "kit", tmp_path / "photos", "3.12", None)

    def test_generated_photos_are_alike_each_time_and_not_flat(self, tmp_path: Path) -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
            gpu_kit._generate_photos(tmp_path / name)
        first, again = (np.asarray(Image.open(tmp_path / name / "generated0.png")) for name in "ab")
        assert np.array_equal(first, again)
        assert first.std() > 20

    def test_requirements_of_a_wheel_are_those_of_the_other_machine(self, tmp_path: Path) -> None:
        wheel = tmp_path / "some-1-py3-none-any.whl"
        lines = [
            "Metadata-Version: 2.1",
            "Name: some",
            "Requires-Dist: plain>=2",
            'Requires-Dist: old; python_version < "3.12"',
            'Requires-Dist: windows; sys_platform == "win32"',
            'Requires-Dist: extra; extra == "more"',
        ]
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("some-1.dist-info/METADATA", "\n".join(lines) + "\n")
        assert gpu_kit.read_requirements(wheel, "3.12") == ["plain>=2"]
        assert gpu_kit.read_requirements(wheel, "3.11") == ["plain>=2", "old"]

    def test_packages_are_read_from_pip(self) -> None:
        text = "PyYAML==6.0\ntyping_extensions   4.1\n\n# none\nscipy\ntorch 2.11.0+cu130"
        packages = {"pyyaml": "6.0", "typing-extensions": "4.1", "scipy": None, "torch": "2.11.0+cu130"}
        assert gpu_kit.read_packages(text) == packages
        needs = {
            "pyyaml>=6": True,
            "typing_extensions>=4.16": False,
            "scipy>=9": True,
            "torch>=2.6": True,
            "einops": False,
        }
        assert {need: gpu_kit._is_satisfied(need, packages) for need in needs} == needs


class TestPage:
    def test_in_the_documentation_is_the_one_without_results(self) -> None:
        assert (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8") == gpu_page.render_page(None)

    def test_names_the_card_and_has_all_numbers(self) -> None:
        results = {"card": {"name": "Some GPU"}, "versions": {"torch": "2.11", "triton": "3.6"}, "rates": [1.0, 2.5]}
        stage = {"status": "done", "seconds": 3.0, "results": results}
        page = gpu_page.render_page({"device": "cuda", "tiny": False, "stages": {"machine": stage}})
        assert "Measured on Some GPU, torch 2.11, Triton 3.6." in page
        assert "It has not run on a GPU yet" not in page
        assert "## Results: Some GPU, torch 2.11, Triton 3.6" in page
        assert "| rates | 1; 2.5 |" in page
