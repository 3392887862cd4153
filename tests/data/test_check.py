from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from selfsr.cli.data import app
from selfsr.data import check
from selfsr.data.check import check_folder
from selfsr.data.spec import FolderSpec
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.images.paths import list_images


def put(path: Path, height: int, width: int, channels: int = 3, alpha: bool = False, dtype=np.uint8) -> Path:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, channels)).astype(dtype)
    write_image(path, DecodedImage(pixels, np.zeros((height, width), dtype) if alpha else None))
    return path


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Every kind of trouble once, among files that are fine."""
    folder = tmp_path / "hr"
    put(folder / "good.png", 40, 50)
    put(folder / "gray.png", 40, 40, channels=1)
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


def test_check_folder_finds_every_problem_and_nothing_else(mixed):
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
        "have the name of another file with another suffix, so may be the same image twice": 2,
        "have another format than their suffix": 1,
        "have transparency, which training ignores": 1,
        "are CMYK or Lab, and are converted to sRGB": 1,
        "have a palette of at most 256 colors": 1,
        "are gray": 1,
    }
    assert summary.sizes[0] == (40, 31)
    assert summary.sizes[-1] == (60, 40)
    assert sum(summary.layouts.values()) == 8
    assert summary.layouts[("TIFF", "RGBA", 16)] == 1
    pixels = 40 * 50 + 40 * 40 + 2 * 41 * 47 + 40 * 31 + 44 * 44 + 60 * 40 + 60 * 40 + 40 * 40
    assert summary.decoded_bytes == 3 * pixels


def test_file_problem_says_what_came_and_what_to_do(mixed):
    reasons = {problem.path.name: str(problem) for problem in check_folder(mixed, crop_px=32).problems}
    assert reasons["empty.png"] == (
        f"{mixed}/empty.png: expected an image, got an empty file (0 bytes); replace or delete it."
    )
    assert reasons["small.png"] == (
        f"{mixed}/small.png: expected at least 32 x 32 pixels, the size of the crop, got 40 x 31 (height x width); "
        "leave it out, or set data.small to skip or pad."
    )
    assert "cut.png: expected a readable image, got image file is truncated" in reasons["cut.png"]


def test_check_folder_without_crop_accepts_every_size(mixed):
    assert "too small" not in {problem.kind for problem in check_folder(mixed).problems}


def test_check_folder_with_lr_finds_wrong_pairs(tmp_path):
    hr, lr = tmp_path / "hr", tmp_path / "lr"
    for name in ("fits", "numbered", "wrong", "single", "damaged"):
        put(hr / f"{name}.png", 21, 33)
    put(lr / "fits.png", 10, 16)
    put(lr / "numberedx2.jpg", 10, 16)
    put(lr / "wrong.png", 11, 17)
    put(lr / "damaged.png", 10, 16).write_bytes(b"")
    summary = check_folder(hr, lr, 2, 20)
    assert [(problem.path, problem.kind) for problem in summary.problems] == [
        (hr / "single.png", "no pair"),
        (lr / "damaged.png", "unreadable"),
        (lr / "wrong.png", "wrong size"),
    ]
    assert str(summary.problems[2]) == (
        f"{lr}/wrong.png: expected 10 x 16 pixels (height x width) for an HR image of 21 x 33 at scale 2, got "
        f"11 x 17; make it again from {hr}/wrong.png."
    )
    assert summary.notes == {"in the LR folder are JPEG; the model learns to remove its artifacts": 1}
    assert summary.files == 9


def test_check_folder_reports_files_without_permission(mixed, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(check, "read_header", refuse)
    problems = check_folder(mixed).problems
    assert len(problems) == 11
    assert problems[0].reason == "expected a readable file, got Permission denied; check its permissions and the disk."


def test_check_folder_refuses_missing_or_empty_folders(tmp_path, mixed):
    with pytest.raises(InputError, match=r"hrr: expected a folder of images, .*did you mean .*hr\?"):
        check_folder(tmp_path / "hrr")
    (tmp_path / "lr").mkdir()
    with pytest.raises(InputError, match=r"lr: expected images .*, got none"):
        check_folder(mixed, tmp_path / "lr", 2)


@pytest.fixture
def masked(tmp_path) -> Path:
    """Pictures with masks, of which each but the first two has another trouble."""
    masks, good = tmp_path / "masks", np.zeros((20, 30), np.uint8)
    good[4:9, 5:20] = 1
    names = ("a_mat", "a_png", "cut", "gray_levels", "missing", "no_mat", "other", "sub/turned", "two")
    for name in names:
        put(tmp_path / "hr" / f"{name}.png", 20, 30)
        (masks / name).parent.mkdir(parents=True, exist_ok=True)
    for name in ("a_mat", "cut", "two"):
        savemat(masks / f"{name}.mat", {"mat": good})
    (masks / "cut.mat").write_bytes((masks / "cut.mat").read_bytes()[:150])
    savemat(masks / "other.mat", {"mask": good})
    savemat(masks / "sub" / "turned.mat", {"mat": good.T})
    for name in ("a_png", "two"):
        write_image(masks / f"{name}.png", DecodedImage(255 * good[:, :, None]))
    write_image(masks / "gray_levels.png", DecodedImage(200 * good[:, :, None]))
    (masks / "no_mat.mat").write_text("hello")
    return tmp_path


def test_check_folder_with_masks_finds_wrong_masks(masked):
    hr, masks = masked / "hr", masked / "masks"
    summary = check_folder(hr, masks=masks)
    assert [(problem.path, problem.kind) for problem in summary.problems] == [
        (masks / "cut.mat", "wrong mask"),
        (masks / "gray_levels.png", "wrong mask"),
        (hr / "missing.png", "no mask"),
        (masks / "no_mat.mat", "wrong mask"),
        (masks / "other.mat", "wrong mask"),
        (masks / "sub" / "turned.mat", "wrong mask"),
        (hr / "two.png", "no mask"),
    ]
    reasons = [problem.reason for problem in summary.problems]
    assert reasons[1] == "expected a mask of 0 and 1, or 0 and 255, got values from 0 to 200; save it again."
    assert reasons[2].startswith(f"expected a mask missing.mat or missing.png in {masks}, got none; add it")
    assert reasons[4] == "expected a variable 'mat', got mask; save the mask under this name."
    assert reasons[5] == (
        f"expected a mask of 20 x 30 (height x width), the size of {hr}/sub/turned.png, got 30 x 20; make it again "
        "from that image."
    )
    assert summary.files == 18
    assert check_folder(hr).problems == []
    with pytest.raises(InputError, match=r"maskz: expected a folder of masks, .*did you mean .*masks\?"):
        check_folder(hr, masks=masked / "maskz")


def test_check_folder_finds_the_masks_that_training_refuses(masked):
    """A dataset of each single image: it can be built and read if and only if the check found no problem."""
    hr, masks = masked / "hr", masked / "masks"
    wrong = {problem.path.stem for problem in check_folder(hr, masks=masks).problems}
    for image in list_images(hr):
        single = masked / "single" / image.stem
        single.mkdir(parents=True)
        (single / image.name).write_bytes(image.read_bytes())
        folder = masks / image.relative_to(hr).parent
        spec = FolderSpec(kind="folder", hr=single, masks=folder)
        if image.stem in wrong:
            with pytest.raises(InputError):
                spec.build(scale=2, crop_px=16).sample(0, np.random.default_rng(0))
        else:
            assert spec.build(scale=2, crop_px=16).sample(0, np.random.default_rng(0)).mask is not None


def run(*arguments: str | Path):
    root = typer.Typer()
    root.add_typer(app, name="data")
    return CliRunner().invoke(root, ["data", "check", *map(str, arguments)])


def test_data_check_prints_problems_and_exits_with_1(mixed):
    result = run(mixed, "--crop", "32")
    assert result.exit_code == 1
    assert "7 of 11 files are usable." in result.stdout
    assert f"too small {mixed}/small.png: expected at least 32 x 32" in result.stdout
    assert "Height x width, smallest, median, largest: 40 x 31, " in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["TIFF", "RGBA", "16", "1"] in rows


def test_data_check_with_masks_prints_problems_and_exits_with_1(masked):
    result = run(masked / "hr", "--masks", masked / "masks")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert sum(line.startswith("wrong mask ") for line in lines) == 5
    assert sum(line.startswith(f"no mask {masked}/hr/") for line in lines) == 2
    assert "11 of 18 files are usable." in lines
    assert run(masked / "hr").exit_code == 0


def test_data_check_of_good_folder_exits_with_0(tmp_path):
    put(tmp_path / "a.png", 8, 8)
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "1 of 1 files are usable." in result.stdout
    assert "Note" not in result.stdout


def test_data_check_needs_lr_and_scale_together(mixed):
    for arguments in (["--lr", mixed], ["--scale", "2"]):
        error = run(mixed, *arguments).exception
        assert isinstance(error, InputError)
        assert str(error).startswith("data check: expected --lr and --scale together, got one of them; give both")
