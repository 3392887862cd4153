from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from selfsr._checks import InputError
from selfsr.cli.data import app
from selfsr.data import check
from selfsr.data.check import check_folder
from selfsr.data.pictures import Picture, write_picture


def put(path: Path, height: int, width: int, channels: int = 3, alpha: bool = False, dtype=np.uint8) -> Path:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels)).astype(dtype)
    write_picture(path, Picture(pixels, np.zeros((height, width), dtype) if alpha else None))
    return path


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Every kind of trouble once, among files that are fine."""
    folder = tmp_path / "hr"
    put(folder / "good.png", 40, 50)
    put(folder / "grey.png", 40, 40, channels=1)
    put(folder / "deep.tif", 41, 47, alpha=True, dtype=np.uint16)
    put(folder / "small.png", 40, 31)
    put(folder / "good.bmp", 44, 44)
    Image.new("CMYK", (40, 60)).save(folder / "print.jpg")
    Image.new("P", (40, 60)).save(folder / "palette.png")
    put(folder / "x.jpg", 40, 40).rename(folder / "lossy.png")
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("hello")
    whole = put(folder / "sub" / "cut.png", 64, 64).read_bytes()
    (folder / "sub" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_everything_is_found_and_nothing_else(mixed):
    summary = check_folder(mixed, crop_px=32)
    found = [(problem.path.relative_to(mixed).as_posix(), problem.kind) for problem in summary.problems]
    assert found == [
        ("empty.png", "unreadable"),
        ("small.png", "too small"),
        ("sub/cut.png", "unreadable"),
        ("text.jpg", "unreadable"),
    ]
    assert summary.files == 11
    assert summary.notes == {
        "share a name with another and differ by the suffix: the same picture twice?": 2,
        "are of another format than their suffix says": 1,
        "have transparency, which training leaves out": 1,
        "are CMYK or Lab, and are converted to sRGB": 1,
        "have a palette of at most 256 colours": 1,
        "are grey": 1,
    }
    assert summary.sizes[0] == (40, 31)
    assert summary.sizes[-1] == (60, 40)
    assert sum(summary.layouts.values()) == 8
    assert summary.layouts[("TIFF", "RGBA", 16)] == 1
    pixels = 40 * 50 + 40 * 40 + 2 * 41 * 47 + 40 * 31 + 44 * 44 + 60 * 40 + 60 * 40 + 40 * 40
    assert summary.decoded_bytes == 3 * pixels


def test_reasons_say_what_came_and_what_to_do(mixed):
    reasons = {problem.path.name: str(problem) for problem in check_folder(mixed, crop_px=32).problems}
    assert reasons["empty.png"] == (
        f"{mixed}/empty.png: expected a picture, got an empty file (0 bytes); replace or delete it."
    )
    assert reasons["small.png"] == (
        f"{mixed}/small.png: expected at least 32 x 32 pixels, the size of the crop, got 40 x 31 (height x width); "
        "leave it out."
    )
    assert "cut.png: expected a readable picture, got image file is truncated" in reasons["cut.png"]


def test_without_a_crop_every_size_will_do(mixed):
    assert "too small" not in {problem.kind for problem in check_folder(mixed).problems}


def test_pairs(tmp_path):
    hr, lr = tmp_path / "hr", tmp_path / "lr"
    for name in ("fits", "numbered", "wrong", "alone", "damaged"):
        put(hr / f"{name}.png", 21, 33)
    put(lr / "fits.png", 10, 16)
    put(lr / "numberedx2.jpg", 10, 16)
    put(lr / "wrong.png", 11, 17)
    put(lr / "damaged.png", 10, 16).write_bytes(b"")
    summary = check_folder(hr, lr, 2, 20)
    assert [(problem.path, problem.kind) for problem in summary.problems] == [
        (hr / "alone.png", "no pair"),
        (lr / "damaged.png", "unreadable"),
        (lr / "wrong.png", "wrong size"),
    ]
    assert str(summary.problems[2]) == (
        f"{lr}/wrong.png: expected 10 x 16 pixels (height x width), HR of 21 x 33 at scale 2, got 11 x 17; "
        f"make it again from {hr}/wrong.png."
    )
    assert summary.notes == {"of the LR folder are JPEG, whose losses the model would learn to undo": 1}
    assert summary.files == 9


def test_files_that_may_not_be_read_are_problems(mixed, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(check, "read_header", refuse)
    problems = check_folder(mixed).problems
    assert len(problems) == 11
    assert problems[0].reason == "expected a readable file, got Permission denied; check its permissions and the disk."


def test_folders_are_missing_or_empty(tmp_path, mixed):
    with pytest.raises(InputError, match=r"hrr: expected a folder of pictures, .*did you mean .*hr\?"):
        check_folder(tmp_path / "hrr")
    (tmp_path / "lr").mkdir()
    with pytest.raises(InputError, match=r"lr: expected pictures .*, got none"):
        check_folder(mixed, tmp_path / "lr", 2)


def run(*arguments: str | Path):
    root = typer.Typer()
    root.add_typer(app, name="data")
    return CliRunner().invoke(root, ["data", "check", *map(str, arguments)])


def test_the_verb_names_the_files_and_fails(mixed):
    result = run(mixed, "--crop", "32")
    assert result.exit_code == 1
    assert "7 of 11 files are usable." in result.stdout
    assert f"too small {mixed}/small.png: expected at least 32 x 32" in result.stdout
    assert "Height x width, smallest, median, largest: 40 x 31, " in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["TIFF", "RGBA", "16", "1"] in rows


def test_the_verb_is_content_with_a_good_folder(tmp_path):
    put(tmp_path / "a.png", 8, 8)
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "1 of 1 files are usable." in result.stdout
    assert "Note" not in result.stdout


def test_the_verb_wants_lr_and_scale_together(mixed):
    for arguments in (["--lr", mixed], ["--scale", "2"]):
        error = run(mixed, *arguments).exception
        assert isinstance(error, InputError)
        assert str(error).startswith("data check: --lr and --scale go together")
