"""The cache on disk: same crops, read by the next run and by other processes, and never worse than decoding."""

import errno
import io
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from factories import recipe_error, texture
from programs import run_python
from selfsr.data import array_cache, store
from selfsr.data.file_index import CacheFolder
from selfsr.data.loader import Loader
from selfsr.data.spec import FolderSpec, PairsSpec
from selfsr.data.store import ImageStore
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.training.data_record import describe_data


@pytest.fixture
def hr(photos: Path, tmp_path: Path) -> Path:
    """Return a folder of five images, of which one is gray and one has 16 bits."""
    folder = Path(shutil.copytree(photos / "train", tmp_path / "hr"))
    write_image(folder / "p1.png", DecodedImage(texture(7, 70, 64)[:, :, :1]))
    write_image(folder / "p2.png", DecodedImage(texture(8, 64, 66).astype(np.uint16) * 257 + 3))
    return folder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that gets the path of each image that is decoded or whose header is read."""
    paths: list[Path] = []
    for name in ("read_image", "read_header"):
        read = getattr(store, name)

        def count(path: Path, read=read):
            paths.append(path)
            return read(path)

        monkeypatch.setattr(store, name, count)
    return paths


def open_store(hr: Path, folder: Path) -> ImageStore:
    return ImageStore("data.hr", sorted(hr.iterdir()), CacheFolder(folder))


def read_all(images: ImageStore) -> list[np.ndarray]:
    return [images.read(index) for index in range(len(images))]


def assert_equal(images: ImageStore, hr: Path) -> None:
    """Assert that all arrays equal the decoded files."""
    decoded = ImageStore("data.hr", sorted(hr.iterdir()), "off")
    for index, array in enumerate(read_all(images)):
        expected = decoded.read(index)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def find(folder: Path, pattern: str) -> Path:
    (path,) = folder.rglob(pattern)
    return path


def test_the_next_run_reads_neither_headers_nor_images(hr: Path, tmp_path: Path, counted: list[Path]) -> None:
    first = open_store(hr, tmp_path / "cache")
    assert not first.cached  # so several processes decode
    assert_equal(first, hr)
    counted.clear()
    second = open_store(hr, tmp_path / "cache")
    assert second.cached
    read_all(second)
    assert counted == []
    assert_equal(second, hr)


def test_batches_equal_those_without_cache(hr: Path, tmp_path: Path) -> None:
    batches = {}
    for cache in ("off", "disk", "disk"):
        spec = {"kind": "folder", "hr": hr, "cache": cache, "small": "skip"}
        spec |= {"cache_folder": tmp_path / "cache"} if cache == "disk" else {}
        loader = Loader(FolderSpec(**spec).build(scale=2, crop_px=32), batch=4, seed=1, workers=0)
        batches.setdefault(cache, [])
        batches[cache] += [next(loader).parts[0].hr for _ in range(6)]
    assert all((a == b).all() for a, b in zip(batches["disk"], 2 * batches["off"], strict=True))


def test_a_changed_a_new_and_a_removed_image_are_noticed(hr: Path, tmp_path: Path, counted: list[Path]) -> None:
    read_all(open_store(hr, tmp_path / "cache"))
    write_image(hr / "p0.png", DecodedImage(texture(99, 72, 80)))  # same size in pixels
    write_image(hr / "new.png", DecodedImage(texture(98, 40, 41)))
    (hr / "p4.png").unlink()
    counted.clear()
    images = open_store(hr, tmp_path / "cache")
    assert sorted({path.name for path in counted}) == ["new.png", "p0.png"]
    assert_equal(images, hr)


def test_images_that_change_again_and_again_do_not_fill_the_disk(hr: Path, tmp_path: Path) -> None:
    sizes = []
    for seed in range(8):
        for path in sorted(hr.iterdir()):
            write_image(path, DecodedImage(texture(seed, 64, 64)))
            os.utime(path, ns=(seed, seed))
        read_all(open_store(hr, tmp_path / "cache"))
        sizes.append(find(tmp_path / "cache", "arrays-*.bin").stat().st_size)
    assert max(sizes) <= 2 * sizes[0]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [cut, overwrite, remove])
@pytest.mark.parametrize("pattern", ["arrays-*.bin", "index.npz"])
def test_a_damaged_cache_is_filled_again(hr: Path, tmp_path: Path, pattern: str, damage, capsys) -> None:
    read_all(open_store(hr, tmp_path / "cache"))
    damage(find(tmp_path / "cache", pattern))
    capsys.readouterr()
    assert_equal(open_store(hr, tmp_path / "cache"), hr)
    sentence = capsys.readouterr().err
    if damage is cut and pattern == "arrays-*.bin":
        assert "data.hr: expected a cache of " in sentence
        assert "; what is missing is decoded again." in sentence
    elif damage is not remove and pattern == "index.npz":
        assert "data.hr: expected the index of a cache in " in sentence
    assert open_store(hr, tmp_path / "cache").cached


def test_a_cache_of_other_images_is_not_used(hr: Path, tmp_path: Path) -> None:
    """The arrays of another folder, of the same sizes, under the index of this one."""
    other = Path(shutil.copytree(hr, tmp_path / "other"))
    for path in sorted(other.iterdir()):
        write_image(path, DecodedImage(texture(300, *ImageStore("data.hr", [path], "off").sizes[0].tolist())))
    for folder, cache in ((hr, "cache"), (other, "other_cache")):
        read_all(open_store(folder, tmp_path / cache))
    shutil.copyfile(find(tmp_path / "other_cache", "arrays-*.bin"), find(tmp_path / "cache", "arrays-*.bin"))
    assert_equal(open_store(hr, tmp_path / "cache"), hr)


def test_a_single_flipped_bit_is_found(hr: Path, tmp_path: Path) -> None:
    read_all(open_store(hr, tmp_path / "cache"))
    path = find(tmp_path / "cache", "arrays-*.bin")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert_equal(open_store(hr, tmp_path / "cache"), hr)


def test_a_full_disk_is_one_sentence_over_all_processes_and_loses_nothing(
    hr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = open_store(hr, tmp_path / "cache")
    images.read(0)
    other = pickle.loads(pickle.dumps(images))  # as a loader process gets it
    write, written = array_cache._write_at, io.BytesIO()

    def fill(file, offset: int, data) -> None:
        write(file, offset, data[: len(data) // 2])  # part of an array is written before the disk is full
        written.write(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(array_cache, "_write_at", fill)
    assert_equal(images, hr)
    assert_equal(images, hr)
    assert len(written.getvalue()) == 1  # it does not try again
    assert_equal(other, hr)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "got a full disk; the run continues, and decodes again what the cache lacks. Make room" in lines[0]
    monkeypatch.undo()
    assert_equal(open_store(hr, tmp_path / "cache"), hr)


def test_too_small_a_disk_is_refused_before_the_run(hr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(array_cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"GB of free disk space in .* for cache: disk, got 0.0 GB; make room, set"):
        open_store(hr, tmp_path / "cache")


def test_a_pickled_store_and_another_process_share_the_file(hr: Path, tmp_path: Path, counted: list[Path]) -> None:
    program = (
        "import sys; from pathlib import Path; from selfsr.data.store import ImageStore; "
        "from selfsr.data.file_index import CacheFolder; "
        "s = ImageStore('data.hr', sorted(Path(sys.argv[1]).iterdir()), CacheFolder(Path(sys.argv[2]))); "
        "[s.read(i) for i in range(len(s))]"
    )
    images = pickle.loads(pickle.dumps(open_store(hr, tmp_path / "cache")))
    assert run_python("-c", program, hr, tmp_path / "cache").returncode == 0
    counted.clear()
    read_all(images)
    assert counted == []
    assert_equal(images, hr)


def test_masks_and_pairs_are_kept_as_well(hr: Path, tmp_path: Path) -> None:
    for path in sorted(hr.iterdir()):
        pixels = ImageStore("data.hr", [path], "off").read(0)
        depth = 257 if pixels.dtype == np.uint16 else 1
        write_image(tmp_path / "lr" / path.name, DecodedImage((pixels[::2, ::2] // depth).astype(np.uint8)))
        edges = np.where((pixels[:, :, :1] // depth) > 128, 255, 0).astype(np.uint8)
        write_image(tmp_path / "masks" / path.name, DecodedImage(edges))
    spec = {"kind": "pairs", "hr": hr, "lr": tmp_path / "lr", "masks": tmp_path / "masks"}
    expected = PairsSpec(**spec, cache="off").build(scale=2, crop_px=32)
    for _ in range(2):
        found = PairsSpec(**spec, cache="disk", cache_folder=tmp_path / "cache").build(scale=2, crop_px=32)
        for index in range(len(expected)):
            crops = [each.sample(index, np.random.default_rng(index)) for each in (found, expected)]
            for name in ("hr", "lr", "mask"):
                np.testing.assert_array_equal(*(getattr(crop, name) for crop in crops))
    assert found.cached


def test_a_folder_without_the_cache_is_refused(tiny: dict) -> None:
    tiny["data"]["cache_folder"] = "somewhere"
    assert "cache_folder needs cache: disk, got cache: auto; set cache to disk, or leave it out" in recipe_error(tiny)


def test_the_default_folder_is_that_of_the_user(hr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    FolderSpec(kind="folder", hr=hr, cache="disk").build(scale=2, crop_px=32)
    assert find(tmp_path / "xdg" / "selfsr", "index.npz").exists()


def test_the_record_of_a_run_has_the_sizes_of_the_files_as_with_other_caches(hr: Path, tmp_path: Path) -> None:
    """With this cache they come from the index, without another look at each file."""
    specs = [
        FolderSpec(kind="folder", hr=hr, cache="off"),
        FolderSpec(kind="folder", hr=hr, cache="disk", cache_folder=tmp_path / "cache"),
    ]
    off, disk = (describe_data([spec.build(scale=2, crop_px=8)]) for spec in specs)
    assert off == disk
    with (sorted(hr.iterdir())[0]).open("ab") as file:
        file.write(b"0")
    assert describe_data([specs[1].build(scale=2, crop_px=8)]) != disk
