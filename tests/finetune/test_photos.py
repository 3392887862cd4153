"""The photos that are held out, and the crop."""

import numpy as np
import pytest

from selfsr.errors import InputError
from selfsr.finetune.photos import choose_crop_px, split_photos, write_list
from selfsr.images.files import DecodedImage, write_image
from selfsr.images.paths import list_images


def _write_photos(folder, sides):
    folder.mkdir(parents=True)
    for index, side in enumerate(sides):
        write_image(folder / f"{index:02}.png", DecodedImage(np.zeros((side, side + 8, 3), np.uint8)))
    return folder


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (9, 1), (30, 3), (300, 20)])
def test_a_tenth_is_held_out(tmp_path, monkeypatch, count, held_out):
    paths = [tmp_path / f"{index}.png" for index in range(count)]
    monkeypatch.setattr("selfsr.finetune.photos.list_images", lambda _: paths)
    split = split_photos(tmp_path)
    assert len(split.held_out) == held_out
    assert sorted(split.train + split.held_out) == sorted(paths)


def test_the_choice_depends_on_names_below_the_folder_alone(tmp_path):
    first = split_photos(_write_photos(tmp_path / "a/photos", [16] * 12))
    second = split_photos(_write_photos(tmp_path / "b", [24] * 12))
    assert [path.name for path in first.held_out] == [path.name for path in second.held_out]


def test_one_photograph_is_too_few(tmp_path):
    with pytest.raises(InputError, match="expected at least two photos"):
        split_photos(_write_photos(tmp_path / "one", [32]))


@pytest.mark.parametrize(
    ("sides", "crop_px"),
    [([400] * 10, 192), ([400] * 9 + [100], 192), ([400] * 8 + [100] * 2, 96), ([64] * 5, 64), ([100, 60], 64)],
)
def test_the_crop_fits_nine_of_ten_photographs(tmp_path, sides, crop_px):
    paths = list_images(_write_photos(tmp_path / "photos", sides))
    assert choose_crop_px(paths, scale=4, minimum_px=64) == crop_px


def test_photographs_smaller_than_the_smallest_crop_are_refused(tmp_path):
    paths = list_images(_write_photos(tmp_path / "photos", [40] * 4))
    with pytest.raises(InputError, match=r"expected photos of at least 64 x 64 pixels, got none .* exceeds 40"):
        choose_crop_px(paths, scale=4, minimum_px=1)


def test_a_written_list_is_read_back(tmp_path):
    paths = list_images(_write_photos(tmp_path / "photos", [16] * 3))
    write_list(tmp_path / "run/train.txt", paths)
    assert list_images(tmp_path / "run/train.txt") == paths
