"""The kit of bench/gpu.py: everything that a machine without network needs to measure its GPU."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
# Most bytes of the kit and of its photos.
LARGEST_BYTES = 60 * 10**6
LARGEST_PHOTO_BYTES = 10 * 10**6
MOST_PHOTOS = 24
# Shorter side of an image from which all stages can cut their crops.
SHORTEST_SIDE_PX = 256
# Groups of pyproject.toml that the stages need.
EXTRAS = ("train", "demo")
TEST_PACKAGES = ("pytest", "pytest-xdist", "hypothesis", "scipy")
# Packages that need CUDA builds, or come with them: they must be there.
CUDA_PACKAGES = {"torch", "torchvision", "triton", "numpy", "sympy", "networkx", "jinja2", "fsspec", "filelock"}
SOURCES = ("src", "bench", "tests", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md")
_PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (17, 24, 27, 28, 31, 34)] + ["manylinux2014_x86_64"]
_SCRIPT = """#!/bin/sh
# Measure the GPU of this machine; results are in results/ next to this file.
set -e
cd "$(dirname "$0")"
if ls wheels/*.whl >/dev/null 2>&1; then
    python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target site wheels/*.whl
fi
PYTHONPATH="$PWD/site:$PYTHONPATH" exec python3 bench/gpu.py --out "${OUT:-results}" --photos photos "$@"
"""


def make_kit(folder: Path, photos: Path | None, python: str, installed: Path | None) -> None:
    """Fill a folder with sources, photos, wheels and a script that runs all stages.

    Args:
        folder: a new or empty folder.
        photos: folder with training images; None generates some.
        python: Python version of the machine, such as "3.12".
        installed: file with its packages, as `pip list` prints them; None stands for PyTorch and what comes with it.

    Raises:
        SystemExit: the folder is not empty, pip does not get a wheel, or the kit is too large.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(
            f"bench/gpu.py: --kit must name a new or empty folder, got {folder}; remove it or name another."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    _gather_photos(folder / "photos", photos)
    there = dict.fromkeys(CUDA_PACKAGES)
    if installed is not None:
        there = read_packages(installed.read_text(encoding="utf-8")) | {"torch": None}
    wheels = fetch_wheels(_list_requirements(), there, python, folder / "wheels")
    script = folder / "run.sh"
    script.write_text(_SCRIPT, encoding="utf-8")
    script.chmod(0o755)
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(files.values())
    print(f"{folder}: {total / 1e6:.1f} MB, {len(wheels)} wheels: {', '.join(sorted(wheels))}")
    if total > LARGEST_BYTES:
        largest = sorted(files, key=lambda path: -files[path])[:3]
        raise SystemExit(
            f"bench/gpu.py: the kit must be below {LARGEST_BYTES / 1e6:.0f} MB, got {total / 1e6:.0f} MB, most of it "
            f"in {', '.join(path.name for path in largest)}; list packages that the machine has in --installed."
        )


def _gather_photos(folder: Path, photos: Path | None) -> None:
    """Copy the first photos that are small enough together, or write generated ones."""
    folder.mkdir()
    if photos is None:
        _generate_photos(folder)
        return
    copied = 0
    candidates = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    for path in candidates:
        if len(list(folder.iterdir())) >= MOST_PHOTOS:
            break
        size = path.stat().st_size
        with Image.open(path) as image:
            is_large = min(image.size) >= SHORTEST_SIDE_PX
        if is_large and copied + size <= LARGEST_PHOTO_BYTES:
            shutil.copy(path, folder / path.name)
            copied += size
    if not copied:
        raise SystemExit(
            f"bench/gpu.py: --photos must have PNG or JPEG images of {SHORTEST_SIDE_PX} px or more, below "
            f"{LARGEST_PHOTO_BYTES / 1e6:.0f} MB, got none in {photos}; name another folder, or leave it out."
        )


def _generate_photos(folder: Path) -> None:
    """Write four images with smooth areas, edges and textures: sums of waves and random disks."""
    import numpy as np

    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:480, 0:480] / 480
    for number in range(4):
        image = np.zeros((480, 480, 3))
        for channel in range(3):
            for _ in range(12):
                fx, fy, phase = generator.normal(0, 12), generator.normal(0, 12), generator.uniform(0, 6)
                image[..., channel] += np.sin(2 * np.pi * (fx * x + fy * y) + phase) / 12
        for _ in range(40):
            cx, cy, radius = generator.uniform(0, 1, 3) * (1, 1, 0.15)
            image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] += generator.uniform(-0.5, 0.5, 3)
        pixels = np.clip(128 + 100 * image, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"generated{number}.png")


def read_packages(text: str) -> dict[str, str | None]:
    r"""Return packages and their versions from `pip list`, `pip freeze`, or one name a line; None is any version.

    >>> read_packages("PyYAML 6.0\ntyping_extensions==4.1\nscipy")
    {'pyyaml': '6.0', 'typing-extensions': '4.1', 'scipy': None}
    """
    lines = (re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\s+|==)?(\d\S*)?", line.strip()) for line in text.splitlines())
    return {_normalize(line[1]): line[2] for line in lines if line}


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _list_requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *extras, *TEST_PACKAGES]


def fetch_wheels(requirements: list[str], installed: dict[str, str | None], python: str, folder: Path) -> set[str]:
    """Fetch wheels of the requirements that are missing or too old, and of what these need in turn.

    Args:
        requirements: as in pyproject.toml.
        installed: versions of the packages that the machine has, as `read_packages` returns them.
        python: Python version of the machine.
        folder: where the wheels go.

    Returns:
        The file names of the wheels.

    Raises:
        SystemExit: pip does not get a wheel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed, fetched = list(requirements), set()
    while needed:
        requirement = needed.pop()
        name = _normalize(Requirement(requirement).name)
        if name in fetched or _is_satisfied(requirement, installed):
            continue
        fetched.add(name)
        before = set(folder.glob("*.whl"))
        target = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
        target += [option for platform in _PLATFORMS for option in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *target]
        if subprocess.run([*command, requirement.split(";")[0].strip()]).returncode:
            raise SystemExit(
                f"bench/gpu.py: no wheel of {requirement!r} for Python {python} is available from pip; list the "
                "package in --installed if the machine has it."
            )
        for wheel in set(folder.glob("*.whl")) - before:
            needed += read_requirements(wheel, python)
    return {path.name for path in folder.glob("*.whl")}


def _is_satisfied(requirement: str, installed: dict[str, str | None]) -> bool:
    needed = Requirement(requirement)
    name = _normalize(needed.name)
    version = installed.get(name)
    return name in installed and (version is None or needed.specifier.contains(version, prereleases=True))


def read_requirements(wheel: Path, python: str) -> list[str]:
    """Return what a wheel needs on Linux with a Python version, without extras."""
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(file.read(name).decode())
    environment = {
        **default_environment(),
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "extra": "",
    }
    parsed = [Requirement(line) for line in headers.get_all("Requires-Dist") or []]
    return [
        f"{item.name}{item.specifier}" for item in parsed if item.marker is None or item.marker.evaluate(environment)
    ]
