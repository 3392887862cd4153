from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from selfsr.data import store
from selfsr.data.sources_spec import DataSpec
from selfsr.data.spec import FolderSpec, PairsSpec
from selfsr.data.window import apply_symmetry
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.images.resize import symmetric_index


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels are their positions: (row, column, 7)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=2).astype(np.uint8)


def put(path: Path, pixels: np.ndarray) -> Path:
    write_image(path, DecodedImage(pixels))
    return path


def folder(hr: Path, **options) -> FolderSpec:
    return FolderSpec(kind="folder", hr=hr, **options)


@pytest.fixture(params=["off", "memory"])
def cache(request):
    return request.param


def symmetries(window: np.ndarray) -> list[bytes]:
    """The eight symmetries of a square, by rotation and mirroring: not how the code makes them."""
    both = (window, window[:, ::-1])
    return [np.ascontiguousarray(np.rot90(w, k)).tobytes() for w in both for k in range(4)]


def test_apply_symmetry_has_the_eight_symmetries_of_the_square():
    window = coordinates(4, 4)
    turns = {np.ascontiguousarray(apply_symmetry(window, turn)).tobytes() for turn in range(8)}
    assert turns == set(symmetries(window))


@pytest.mark.parametrize("scale", [2, 3])
def test_folder_samples_every_aligned_crop_in_every_symmetry(tmp_path, cache, scale):
    height, width, crop = 5 * scale + scale - 1, 4 * scale + 1, 3 * scale  # not multiples: cut to 5 x 4 LR pixels
    put(tmp_path / "a.png", coordinates(height, width))
    data = folder(tmp_path, cache=cache).build(scale=scale, crop_px=crop)
    assert data.halo_px == 2 * scale
    pixels = coordinates(5 * scale, 4 * scale)
    expected = {}
    for top in range(3):
        for left in range(2):
            rows, columns = (
                symmetric_index(np.arange(start * scale - data.halo_px, start * scale + crop + data.halo_px), n * scale)
                for start, n in ((top, 5), (left, 4))
            )
            for number, view in enumerate(symmetries(pixels[np.ix_(rows, columns)])):
                expected[view] = (top, left, number)
    assert len(expected) == 3 * 2 * 8
    rng = np.random.default_rng(0)
    seen = [np.ascontiguousarray(data.sample(0, rng).hr).tobytes() for _ in range(1500)]
    assert set(seen) == set(expected)
    counts = np.unique([expected_index for expected_index in map(list(expected).index, seen)], return_counts=True)[1]
    # 31 expected of each; a fair draw leaves this range once in some ten thousand runs, and the seed is fixed.
    assert counts.min() > 10
    assert counts.max() < 60


def test_sample_depends_on_the_generator_only(tmp_path):
    put(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8))
    cached = folder(tmp_path, cache="memory").build(scale=2, crop_px=8)
    plain = folder(tmp_path, cache="off").build(scale=2, crop_px=8)
    assert (cached.cached, plain.cached) == (True, False)
    for seed in range(20):
        first = plain.sample(0, np.random.default_rng(seed)).hr
        assert np.array_equal(first, cached.sample(0, np.random.default_rng(seed)).hr)
        assert np.array_equal(first, cached.sample(0, np.random.default_rng(seed)).hr)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_paired_crops_are_aligned(tmp_path, cache, scale):
    # LR pixel (r, c) says (r, c); each of the scale^2 HR pixels over it says the same.
    lr = coordinates(9, 11)
    put(tmp_path / "hr" / "sub" / "a.png", np.kron(lr, np.ones((scale, scale, 1), np.uint8)))
    put(tmp_path / "lr" / "sub" / f"ax{scale}.png", lr)
    spec = PairsSpec(kind="pairs", hr=tmp_path / "hr", lr=tmp_path / "lr", cache=cache)
    data = spec.build(scale=scale, crop_px=4 * scale)
    assert (data.halo_px, data.cached, len(data)) == (0, cache == "memory", 1)
    rng = np.random.default_rng(1)
    corners = set()
    for _ in range(400):
        crop = data.sample(0, rng)
        assert np.array_equal(crop.hr, np.kron(crop.lr, np.ones((scale, scale, 1), np.uint8)))
        corners.add((crop.lr[..., 0].min(), crop.lr[..., 1].min()))
    assert corners == {(top, left) for top in range(6) for left in range(8)}


def test_gray_images_are_repeated_to_rgb(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
    put(tmp_path / "g" / "a.png", gray)
    window = folder(tmp_path / "g").build(scale=2, crop_px=8).sample(0, np.random.default_rng(0)).hr
    assert window.shape[2] == 3
    assert np.array_equal(window[..., 0], window[..., 2])


def test_16_bit_is_kept(tmp_path, cache):
    pixels = np.random.default_rng(0).integers(0, 65536, (4, 4, 3)).astype(np.uint16)
    put(tmp_path / "a.png", pixels)
    crop = folder(tmp_path, cache=cache).build(scale=2, crop_px=4).sample(0, np.random.default_rng(0)).hr
    assert crop.dtype == np.uint16
    assert np.ascontiguousarray(crop[4:8, 4:8]).tobytes() in symmetries(pixels)


# --- the cache ---------------------------------------------------------------------------------------------------


def test_cache_decodes_each_image_once(tmp_path, monkeypatch):
    paths = [put(tmp_path / f"{i}.png", coordinates(6, 8)) for i in range(3)]
    data = folder(tmp_path, cache="memory").build(scale=2, crop_px=4)
    assert data.paths == paths
    decoded = []
    real = store.read_image
    monkeypatch.setattr(store, "read_image", lambda path: (decoded.append(path), real(path))[1])
    rng = np.random.default_rng(0)
    for index in (0, 2, 0, 2, 2):
        data.sample(index, rng)
    assert decoded == [paths[0], paths[2]]


def test_cache_stays_within_the_free_memory(tmp_path, monkeypatch):
    put(tmp_path / "a.png", coordinates(100, 100))  # 30 000 bytes
    free = {"bytes": 120_000}
    monkeypatch.setattr(store, "measure_free_bytes", lambda device: free["bytes"])
    assert folder(tmp_path, cache="auto").build(scale=2, crop_px=4).cached
    free["bytes"] = 119_999
    assert not folder(tmp_path, cache="auto").build(scale=2, crop_px=4).cached
    assert folder(tmp_path, cache="memory").build(scale=2, crop_px=4).cached
    free["bytes"] = 37_000
    with pytest.raises(
        InputError, match=r"data.hr: expected .* GB of free memory for cache: memory, got .* GB; set cache: disk, off"
    ):
        folder(tmp_path, cache="memory").build(scale=2, crop_px=4)
    free["bytes"] = 200_000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # each process of the machine keeps its own
    assert not folder(tmp_path, cache="auto").build(scale=2, crop_px=4).cached


def test_sample_of_a_changed_file_is_refused(tmp_path, cache):
    put(tmp_path / "a.png", coordinates(20, 20))
    data = folder(tmp_path, cache=cache).build(scale=2, crop_px=4)
    put(tmp_path / "a.png", coordinates(20, 22))
    with pytest.raises(InputError, match=r"a.png: expected the image of 20 x 20 .* got 20 x 22; do not change"):
        data.sample(0, np.random.default_rng(0))


# --- what is refused at the start --------------------------------------------------------------------------------


def test_build_refuses_images_smaller_than_the_crop(tmp_path):
    put(tmp_path / "a.png", coordinates(50, 40))
    put(tmp_path / "b.png", coordinates(47, 64))
    put(tmp_path / "c.png", coordinates(60, 30))
    with pytest.raises(InputError) as caught:
        folder(tmp_path).build(scale=4, crop_px=48)
    assert str(caught.value) == (
        "data.hr: expected images of at least 48 x 48 pixels, the size of the crop, but 3 of 3 are smaller, the "
        f"first is {tmp_path}/a.png with 50 x 40 (height x width); set data.small to skip or pad, or crop_px to at "
        "most 28."
    )
    assert len(folder(tmp_path).build(scale=4, crop_px=28)) == 3


def test_folder_refuses_scale_1(tmp_path):
    put(tmp_path / "a.png", coordinates(8, 8))
    with pytest.raises(
        InputError, match=r"^data: expected a scale of 2 or more with kind: folder, got 1; use kind: pairs\.$"
    ):
        folder(tmp_path).build(scale=1, crop_px=4)


def test_build_refuses_missing_folders_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match="nowhere: expected a folder of images"):
        folder(tmp_path / "nowhere").build(scale=2, crop_px=4)
    put(tmp_path / "a.png", coordinates(8, 8))
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"b.png: expected an image, got an empty file"):
        folder(tmp_path).build(scale=2, crop_px=4)


def pairs(tmp_path: Path) -> PairsSpec:
    return PairsSpec(kind="pairs", hr=tmp_path / "hr", lr=tmp_path / "lr")


def test_pairs_of_wrong_size_are_refused(tmp_path):
    put(tmp_path / "hr" / "a.png", coordinates(17, 21))
    put(tmp_path / "lr" / "a.png", coordinates(8, 10))
    put(tmp_path / "lr" / "unused.png", coordinates(8, 10))
    assert len(pairs(tmp_path).build(scale=2, crop_px=8)) == 1  # cut to 16 x 20
    put(tmp_path / "lr" / "a.png", coordinates(9, 11))
    with pytest.raises(InputError) as caught:
        pairs(tmp_path).build(scale=2, crop_px=8)
    assert str(caught.value) == (
        f"{tmp_path}/lr/a.png: expected 8 x 10 pixels (height x width) for an HR image of 17 x 21 at scale 2, got "
        f"9 x 11; make it again from {tmp_path}/hr/a.png or leave the pair out."
    )


def test_pairs_without_partner_or_with_two_are_refused(tmp_path):
    for name in ("a", "b", "c"):
        put(tmp_path / "hr" / f"{name}.png", coordinates(8, 8))
    put(tmp_path / "lr" / "b.png", coordinates(4, 4))
    with pytest.raises(InputError, match=r"hr/a.png: expected an LR image a\.\* or ax2\.\* in .*\(1 more"):
        pairs(tmp_path).build(scale=2, crop_px=8)
    put(tmp_path / "lr" / "a.bmp", coordinates(4, 4))
    put(tmp_path / "lr" / "cx2.png", coordinates(4, 4))
    assert len(pairs(tmp_path).build(scale=2, crop_px=8)) == 3
    put(tmp_path / "lr" / "c.png", coordinates(4, 4))
    with pytest.raises(InputError, match=r"hr/c.png: expected one LR image, got .*lr/c.png and .*lr/cx2.png"):
        pairs(tmp_path).build(scale=2, crop_px=8)
    (tmp_path / "lr" / "c.png").unlink()
    put(tmp_path / "hr" / "a.bmp", coordinates(8, 8))
    with pytest.raises(InputError, match=r"hr/a.png: expected one image of this name, got .*hr/a.bmp as well"):
        pairs(tmp_path).build(scale=2, crop_px=8)


@pytest.mark.parametrize(
    ("entry", "location"),
    [
        ({"kind": "folder", "hr": "x", "lr": "y"}, ("folder", "lr")),
        ({"kind": "pairs", "hr": "x"}, ("pairs", "lr")),
        ({"kind": "folder", "hr": "x", "cache": "yes"}, ("folder", "cache")),
        ({"kind": "folder", "hr": "x", "channels": 2}, ("folder", "channels")),
        ({"kind": "lmdb", "hr": "x"}, ()),
    ],
)
def test_data_spec_refuses_unknown_keys_and_values(entry, location):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(DataSpec).validate_python(entry)
    assert caught.value.errors()[0]["loc"] == location


def test_folder_spec_expands_home():
    assert folder(Path("~/photos")).hr == Path.home() / "photos"
