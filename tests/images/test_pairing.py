"""One rule pairs HR and LR for training, evaluation and `data check`."""

from pathlib import Path

import pytest

from selfsr.errors import InputError
from selfsr.images.pairing import find_size_problem, match_lr, pair_lr


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "hr", tmp_path / "lr"


def pair(folders: tuple[Path, Path], hr: list[str], lr: list[str], scale: int = 2) -> list[str]:
    """Return the LR images of the HR images, as paths below the LR folder."""
    touch(folders[1], *lr)
    pairs = pair_lr(folders[0], touch(folders[0], *hr), folders[1], scale)
    return [path.relative_to(folders[1]).as_posix() for path in pairs]


@pytest.mark.parametrize(
    "ending", ["", "x2", "_x2", "X2", "_X2", "-x2", "_LRBI_x2", "_LR_x2", "LRBI_x2", "_LR-X2", "-LRx2"]
)
def test_pair_lr_knows_the_usual_endings(folders, ending):
    assert pair(folders, ["0801.png"], [f"0801{ending}.jpg", "0802x2.png"]) == [f"0801{ending}.jpg"]


@pytest.mark.parametrize("name", ["0801x3", "0801x22", "0801ax2", "0801_bicubic", "10801x2", "0801x2x2"])
def test_pair_lr_refuses_other_names(folders, name):
    with pytest.raises(InputError) as error:
        pair(folders, ["0801.png"], [f"{name}.png"])
    hr, lr = folders
    assert str(error.value) == (
        f"{hr}/0801.png: expected an LR image 0801.* or 0801x2.* in {lr}, got none; add it or remove the HR image."
    )


def test_pair_lr_mixes_endings_and_ignores_lr_without_hr(folders):
    hr = ["b.png", "a.png", "c.png", "d.e.png"]
    lr = ["ax2.png", "b.jpg", "c_x2.png", "d.ex2.png", "z.png"]
    assert pair(folders, hr, lr) == ["b.jpg", "ax2.png", "c_x2.png", "d.ex2.png"]


def test_pair_lr_matches_equal_names_by_their_folders(folders):
    hr = ["001/0000.png", "000/0000.png", "000/0001.png"]
    lr = ["000/0000.png", "000/0001.png", "001/0000.png"]
    assert pair(folders, hr, lr) == hr
    assert pair(folders, [f"deep/{name}" for name in hr], [f"deep/{name.replace('.', '_X2.')}" for name in lr]) == [
        "deep/001/0000_X2.png",
        "deep/000/0000_X2.png",
        "deep/000/0001_X2.png",
    ]


def test_pair_lr_refuses_several_draws_of_one_image(folders):
    with pytest.raises(InputError) as error:
        pair(folders, ["a.png"], ["1/ax2.png", "2/ax2.png", "3/ax2.png", "4/ax2.png", "1/bx2.png"])
    hr, lr = folders
    assert str(error.value) == (
        f"{hr}/a.png: expected an LR image a.* or ax2.* in {lr}, got {lr}/1/ax2.png, {lr}/2/ax2.png, {lr}/3/ax2.png "
        "and 1 more; pass the folder that has the same subfolders as the HR folder."
    )
    with pytest.raises(InputError) as error:
        pair(folders, ["a.png"], ["a.png", "ax2.png", "a_x2.png"])
    assert str(error.value) == (
        f"{hr}/a.png: expected one LR image, got {lr}/a.png, {lr}/a_x2.png and {lr}/ax2.png; remove all but one."
    )


@pytest.mark.parametrize(
    ("lr", "expected"),
    [
        (["a.png", "ax2.png"], ["a.png", "ax2.png"]),
        (["ax2.png", "ax2x2.png"], ["ax2.png", "ax2x2.png"]),
        (["a_x2.png", "ax2x2.png"], ["a_x2.png", "ax2x2.png"]),
    ],
)
def test_pair_lr_of_names_like_endings_leaves_each_its_own(folders, lr, expected):
    assert pair(folders, ["a.png", "ax2.png"], lr) == expected


def test_pair_lr_never_shares_one_lr_image(folders):
    with pytest.raises(InputError) as error:
        pair(folders, ["a.png", "ax2.png"], ["ax2.png"])
    hr, lr = folders
    assert str(error.value) == (
        f"{hr}/a.png: expected an LR image of its own, got {lr}/ax2.png, which also fits {hr}/ax2.png; "
        "name the LR images ax2 and so on (1 more like this)."
    )
    with pytest.raises(InputError, match=r"hr/a\.png: expected one LR image, got .*a\.png and .*ax2\.png; .*\(1 more"):
        pair(folders, ["a.png", "ax2.png"], ["a.png", "ax2.png", "ax2x2.png"])


def test_match_lr_reports_every_problem(folders):
    hr, lr = folders
    pairs, problems = match_lr(
        hr,
        touch(hr, "a.bmp", "a.png", "b.png", "c.png"),
        lr,
        touch(lr, "a.png", "b.jpg", "b.png", "cx2.png"),
        2,
    )
    assert pairs == {hr / "a.bmp": lr / "a.png", hr / "b.png": lr / "b.jpg", hr / "c.png": lr / "cx2.png"}
    assert problems == {
        hr / "a.png": f"expected one image of this name, got {hr}/a.bmp as well; remove one",
        lr / "b.png": f"expected one image of this name, got {lr}/b.jpg as well; remove one",
    }


def test_pair_lr_of_a_missing_or_empty_folder_is_refused(folders):
    with pytest.raises(InputError, match=r"lr: expected a folder of images"):
        pair_lr(folders[0], touch(folders[0], "a.png"), folders[1], 2)
    folders[1].mkdir()
    with pytest.raises(InputError, match=r"lr: expected images"):
        pair_lr(folders[0], [folders[0] / "a.png"], folders[1], 2)


def test_size_problem_allows_hr_that_is_no_multiple():
    assert find_size_problem((17, 21), (8, 10), 2) is None
    assert find_size_problem((17, 21), (9, 11), 2) == (
        "expected 8 x 10 pixels (height x width) for an HR image of 17 x 21 at scale 2, got 9 x 11"
    )
