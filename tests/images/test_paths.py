"""Listing the images of a folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_header, read_image, write_image
from selfsr.images.paths import is_inside, list_folder, list_images, sort_key


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
    (tmp_path / "photo.png").touch()
    with pytest.raises(InputError, match=r"photo: expected a folder of images, .*did you mean .*photos\?"):
        list_images(tmp_path / "photo")
    with pytest.raises(InputError, match=r"photos.png: expected an image, .*did you mean .*photo.png\?"):
        read_image(tmp_path / "photos.png")
    with pytest.raises(InputError, match=r"photo/deep: .*did you mean .*photos\?"):
        list_images(tmp_path / "photo" / "deep")
    with pytest.raises(InputError, match=r"photos: expected images \(PNG, JPEG, WebP, TIFF, BMP.* or TGA\), got none"):
        list_images(tmp_path / "photos")
    (tmp_path / "photos" / "a.gif").touch()
    with pytest.raises(InputError, match=r"got only other files \(1 \.gif\)"):
        list_images(tmp_path / "photos")
    with pytest.raises(InputError, match=r"a.gif: expected a folder of images, got a file"):
        list_images(tmp_path / "photos" / "a.gif")


def test_files_of_other_kinds_are_counted(tmp_path):
    for name in ("a.png", "b.gif", "c/d.GIF", "e.txt", "Makefile", ".hidden.gif", ".hidden/f.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing = list_folder(tmp_path)
    assert listing.images == [tmp_path / "a.png"]
    assert listing.others == {".gif": 2, ".txt": 1, "": 1}
    expected = "4 files of other kinds left out (2 .gif, 1 without suffix, 1 .txt)."
    assert listing.describe_left_out() == expected
    for index in range(6):
        (tmp_path / f"x.x{index}").touch()
    assert listing.describe_left_out() == expected
    shown = "10 files of other kinds left out (2 .gif, 1 without suffix, 1 .txt, 1 .x0, 1 .x1, 4 more)."
    assert list_folder(tmp_path).describe_left_out() == shown
    for name in ("b.gif", "c/d.GIF", "e.txt", "Makefile", *(f"x.x{index}" for index in range(6))):
        (tmp_path / name).unlink()
    assert list_folder(tmp_path).describe_left_out() is None


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    listing = list_folder(tmp_path)
    assert listing.images == [tmp_path / "a.png"]
    assert listing.describe_left_out() == f"no permission to read the folder {tmp_path / 'closed'}."


def test_links_to_nothing_or_themselves_spoil_only_themselves(tmp_path):
    write_image(tmp_path / "a.png", DecodedImage(np.zeros((3, 4, 1), np.uint8)))
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone" / "x.png")
    (tmp_path / "folder").symlink_to("folder")
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "loop.png", "lost.png"]
    for name, target in (("loop.png", "loop.png"), ("lost.png", f"{tmp_path}/gone/x.png")):
        for read in (read_image, read_header):
            with pytest.raises(InputError) as caught:
                read(tmp_path / name)
            assert str(caught.value) == (
                f"{tmp_path / name}: expected an image, got a link to {target}, which leads to no file; replace it."
            )
        assert is_inside(tmp_path / name, tmp_path)
    with pytest.raises(InputError, match="got a link to folder, which leads to no file"):
        list_images(tmp_path / "folder")


@pytest.mark.parametrize("name", ["n" * 251 + ".png", "名" * 83 + "ab.png", os.fsdecode(b"\xff\xfe\xe9.png")])
def test_long_names_and_names_that_are_not_utf8_are_written_and_read(tmp_path, name):
    image = DecodedImage(np.full((3, 4, 1), 7, np.uint8))
    write_image(tmp_path / name, image)
    assert list_images(tmp_path) == [tmp_path / name]
    assert np.array_equal(read_image(tmp_path / name).pixels, image.pixels)
    (tmp_path / name).write_bytes(b"none")
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / name)
    assert str(caught.value).encode(errors="surrogateescape").startswith(os.fsencode(tmp_path / name))


def test_the_sort_key_sorts_as_paths_do() -> None:
    names = ["b/a.png", "b/a/c.png", "b/a!c.png", "b!/a.png", "b.png", "a/z.png", "b/a.d/c.png", "B/a.png", "é.png"]
    assert [Path(name) for name in sorted(names, key=sort_key)] == sorted(map(Path, names))
    assert sorted(names, key=sort_key) != sorted(names)
