"""Edge masks in files: found, cropped with the same symmetry as the image, and refused if they do not fit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from selfsr import edge_mask
from selfsr.data.loader import Loader
from selfsr.data.spec import FolderSpec, PairsSpec
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image

CPU = torch.device("cpu")


def placed(height: int, width: int, seed: int) -> np.ndarray:
    """An image whose pixels are their positions, (row, column, noise); the noise makes edges."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.random.default_rng(seed).integers(0, 256, (height, width))], 2).astype(np.uint8)


def save(path: Path, mask: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mat":
        savemat(path, {"mat": mask.astype(np.int64)}, do_compression=True, **options)
    else:
        write_image(path, DecodedImage(255 * mask[:, :, None].astype(np.uint8)))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Three images with LR, and the masks of each: .mat as published of two, .png of one in a folder below."""
    for index, name in enumerate(("a", "b.c", "sub/d")):
        pixels = placed(50 + index, 47 - index, index)
        write_image(tmp_path / "hr" / f"{name}.png", DecodedImage(pixels))
        small = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2][::2, ::2]
        write_image(tmp_path / "lr" / f"{name}.png", DecodedImage(np.ascontiguousarray(small)))
        whole = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        mask = edge_mask(whole)[0, 0].numpy()
        assert 0.2 < mask.mean() < 0.6
        save(tmp_path / "masks" / f"{name}{'.png' if name == 'sub/d' else '.mat'}", mask)
    return tmp_path


def spec(files: Path, kind: str = "folder", **options) -> FolderSpec | PairsSpec:
    if kind == "pairs":
        return PairsSpec(kind="pairs", hr=files / "hr", lr=files / "lr", **{"masks": files / "masks", **options})
    return FolderSpec(kind="folder", hr=files / "hr", **{"masks": files / "masks", **options})


def expected_masks(hr: torch.Tensor) -> torch.Tensor:
    """The masks of crops, looked up in those of the full images at the positions in the pixels."""
    sizes = [(50, 47), (51, 46), (52, 45)]
    whole = [torch.from_numpy(placed(*size, seed)).permute(2, 0, 1)[None] / 255 for seed, size in enumerate(sizes)]
    levels = (hr * 255).round().long()
    masks = []
    for rows, columns, noise in levels:
        # The noise tells which image it is.
        (found,) = [
            image
            for image in whole
            if rows.max() < image.shape[2]
            and columns.max() < image.shape[3]
            and torch.equal((image[0, 2] * 255).round().long()[rows, columns], noise)
        ]
        masks.append(edge_mask(found)[0, 0][rows, columns])
    return torch.stack(masks)[:, None]


@pytest.mark.parametrize("cache", ["off", "memory"])
@pytest.mark.parametrize(("kind", "options"), [("folder", {}), ("pairs", {}), ("folder", {"degrade": "bsrgan"})])
def test_crop_has_its_part_of_the_mask_in_every_symmetry(files, kind, options, cache):
    data = spec(files, kind, cache=cache, **options).build(scale=2, crop_px=24)
    assert data.cached == (cache == "memory")
    loader = Loader([data], batch=8, seed=1, workers=0)
    turns = set()
    for _ in range(8):
        (batch,) = loader.prepare(next(loader), CPU)
        assert batch.mask is not None
        assert (batch.mask.dtype, batch.mask.shape) == (torch.bool, (8, 1, 24, 24))
        assert torch.equal(batch.mask, expected_masks(batch.hr))
        levels = (batch.hr * 255).round().long()
        down, right = levels[:, :2, 1, 0] - levels[:, :2, 0, 0], levels[:, :2, 0, 1] - levels[:, :2, 0, 0]
        turns |= {(*a.tolist(), *b.tolist()) for a, b in zip(down, right, strict=True)}
    assert len(turns) == 8


def test_masks_follow_micro_batches_luma_and_scales(files):
    at_2, at_3 = spec(files, channels=1).build_each({2: 24, 3: 24})
    for data in (at_2, at_3):
        whole, cut = (Loader([data], batch=4, seed=3, workers=workers) for workers in (0, 2))
        color = Loader([spec(files).build(scale=data.scale, crop_px=24)], batch=4, seed=3, workers=0)
        (batch,) = whole.prepare(next(whole), CPU)
        parts = cut.prepare(next(cut), CPU, torch.channels_last, 2)
        cut.close()
        assert batch.hr.shape[1] == 1
        assert [part.mask.shape for part in parts] == [(2, 1, 24, 24)] * 2
        assert torch.equal(torch.cat([part.mask for part in parts]), batch.mask)
        (rgb,) = color.prepare(next(color), CPU)
        assert torch.equal(batch.mask, expected_masks(rgb.hr))


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_masks_do_not_depend_on_workers_or_processes(files, cache):
    def batches(**options) -> list[tuple[torch.Tensor, torch.Tensor]]:
        data = spec(files, cache=cache).build(scale=2, crop_px=24)
        loader = Loader([data], **{"batch": 4, "seed": 6, "workers": 0, **options})
        made = [loader.prepare(next(loader), CPU)[0] for _ in range(4)]
        loader.close()
        return [(batch.hr, batch.mask) for batch in made]

    def same(some: list, others: list) -> bool:
        return all(
            torch.equal(*pair) for one, other in zip(some, others, strict=True) for pair in zip(one, other, strict=True)
        )

    whole = batches()
    assert not torch.equal(whole[0][1], whole[1][1])
    assert same(batches(workers=1), whole)
    assert same(batches(workers=2), whole)
    ranks = [batches(rank=rank, world=2, workers=2) for rank in range(2)]
    assert same([tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)], whole)


def test_batch_without_masks_has_none(files):
    loader = Loader([spec(files, masks=None).build(scale=2, crop_px=24)], batch=2, seed=1, workers=0)
    assert [part.mask for part in loader.prepare(next(loader), CPU, accumulate=2)] == [None, None]


@pytest.mark.parametrize("values", [[0, 1], [0, 255], [0, 0], [1, 1]])
def test_png_masks_may_have_0_and_255(files, values):
    path = files / "masks" / "a.png"
    (files / "masks" / "a.mat").unlink()
    mask = np.random.default_rng(0).integers(0, 2, (50, 47, 1))
    write_image(path, DecodedImage(np.array(values, np.uint8)[mask]))
    data = spec(files).build(scale=2, crop_px=44)
    seen = data.sample(0, np.random.default_rng(0)).mask
    assert seen.shape == (44, 44, 1)
    assert set(np.unique(seen)) == {int(value > 0) for value in values}


def refused(files: Path, pattern: str, **options) -> None:
    with pytest.raises(InputError, match=pattern) as caught:
        spec(files, **options).build(scale=2, crop_px=24)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_missing_or_double_masks_are_refused(files):
    refused(files, r"nowhere: expected a folder of masks", masks=files / "nowhere")
    refused(files, r"a\.mat: expected a folder of masks, got a file", masks=files / "masks" / "a.mat")
    save(files / "masks" / "b.c.png", np.zeros((51, 46)))
    refused(files, r"hr/b\.c\.png: expected one mask, got .*b\.c\.mat and .*b\.c\.png; remove one\.")
    (files / "masks" / "b.c.png").unlink()
    (files / "masks" / "b.c.mat").unlink()
    refused(files, r"hr/b\.c\.png: expected a mask b\.c\.mat or b\.c\.png in .*masks, got none; add it")
    refused(files, r"expected a mask b\.c\.mat", kind="pairs")


@pytest.mark.parametrize("suffix", [".mat", ".png"])
def test_mask_of_another_size_is_refused(files, suffix):
    (files / "masks" / "b.c.mat").unlink()
    save(files / "masks" / f"b.c{suffix}", np.zeros((46, 51)))
    pattern = r"b\.c\.\w+: expected a mask of 51 x 46 \(height x width\), the size of .*b\.c\.png, got 46 x 51; make"
    refused(files, pattern)
    refused(files, pattern, degrade="bsrgan")


def test_files_that_are_no_masks_are_refused(files):
    path = files / "masks" / "b.c.mat"
    savemat(path, {"mask": np.zeros((51, 46)), "other": 1})
    refused(files, r"b\.c\.mat: expected a variable 'mat', got mask, other; save the mask under this name\.")
    savemat(path, {"mat": "edges"})
    refused(files, r"expected a matrix of numbers in 'mat', got char; save it as uint8")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    refused(files, r"b\.c\.mat: expected a \.mat file of MATLAB's version 5, got .*; save it again, with -v7\.")
    path.write_bytes(b"")
    refused(files, r"b\.c\.mat: expected a \.mat file of MATLAB's version 5, got ")
    path.unlink()
    write_image(path.with_suffix(".png"), DecodedImage(np.zeros((51, 46, 3), np.uint8)))
    refused(files, r"b\.c\.png: expected an 8-bit gray mask, got Pillow's mode RGB; write it as gray")


def test_mask_values_are_checked_at_the_start_and_on_use(files, capsys):
    save(files / "masks" / "b.c.mat", np.full((51, 46), 7))
    loader = Loader([spec(files).build(scale=2, crop_px=24)], batch=6, seed=1, workers=0)
    (batch,) = loader.prepare(next(loader), CPU)
    assert torch.equal(batch.mask, expected_masks(batch.hr))
    assert loader.skipped == 1
    assert "b.c.mat: expected a mask of 0 and 1, got values from 7 to 7" in capsys.readouterr().err.replace("\n", "")
    savemat(files / "masks" / "a.mat", {"mat": np.full((50, 47), 0.5)})
    refused(files, r"a\.mat: expected a mask of 0 and 1, got values from 0\.5 to 0\.5; save it again\.")


def test_mat_masks_without_scipy_are_refused(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(
        files,
        r"a\.mat: expected the package scipy for \.mat files, got none; install it with pip install scipy, or save",
    )
    for name, size in (("a", (50, 47)), ("b.c", (51, 46))):
        (files / "masks" / f"{name}.mat").unlink()
        save(files / "masks" / f"{name}.png", np.zeros(size))
    assert len(spec(files).build(scale=2, crop_px=24)) == 3
