"""Lists of images: a text file in place of a folder."""

import numpy as np
import pytest

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.images.pairing import pair_lr
from selfsr.images.paths import find_root, list_images


def _write(path, side=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, DecodedImage(np.zeros((side, side, 3), np.uint8)))
    return path


def test_a_list_names_images_relative_to_its_folder(tmp_path):
    first, second = _write(tmp_path / "a/1.png"), _write(tmp_path / "2.png")
    listing = tmp_path / "list.txt"
    listing.write_text(f"# photographs\n2.png\n\n  {first}  \n", encoding="utf-8")
    assert list_images(listing) == sorted([first, second])
    assert find_root(listing, [first, second]) == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.png\nmissing.png\n", r"list.txt, line 2: expected the path of an image.*got missing.png"),
        ("# nothing\n", r"expected a path of an image in each line, got none"),
        ("1.png\n./1.png\n", r"expected each image once"),
        (b"\xff\xfe\x00", r"expected a list of images as UTF-8 text"),
    ],
)
def test_a_wrong_list_is_one_sentence(tmp_path, text, message):
    _write(tmp_path / "1.png")
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        list_images(path)


def test_the_images_of_a_list_have_pairs(tmp_path):
    hr = [_write(tmp_path / f"hr/{name}.png") for name in ("a", "b", "c")]
    lr = [_write(tmp_path / f"lr/{name}x4.png", 4) for name in ("a", "b", "c")]
    listing = tmp_path / "list.txt"
    listing.write_text("hr/c.png\nhr/a.png\n")
    assert pair_lr(listing, list_images(listing), tmp_path / "lr", 4) == [lr[0], lr[2]]
    assert list_images(listing) == [hr[0], hr[2]]
