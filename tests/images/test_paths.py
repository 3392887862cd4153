"""Listing the images of a folder."""

import pytest

from selfsr.errors import InputError
from selfsr.images.paths import list_images


def test_list_images_is_recursive_and_sorted(tmp_path):
    for name in ("b.PNG", "a.jpeg", "sub/c.TiF", "sub/.hidden.png", ".cache/d.png", "notes.txt", "sub/._c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "back").symlink_to(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a.jpeg", "b.PNG", "sub/c.TiF"]


def test_list_images_refuses_missing_and_empty_folders(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=r"photo: expected a folder of images, .*did you mean .*photos\?"):
        list_images(tmp_path / "photo")
    with pytest.raises(InputError, match=r"photo/deep: .*did you mean .*photos\?"):
        list_images(tmp_path / "photo" / "deep")
    with pytest.raises(InputError, match=r"photos: expected images \(PNG, JPEG, WebP, TIFF or BMP\), got none"):
        list_images(tmp_path / "photos")
    (tmp_path / "photos" / "a.gif").touch()
    with pytest.raises(InputError, match=r"got only other files \(\.gif\)"):
        list_images(tmp_path / "photos")
    with pytest.raises(InputError, match=r"a.gif: expected a folder of images, got a file"):
        list_images(tmp_path / "photos" / "a.gif")
