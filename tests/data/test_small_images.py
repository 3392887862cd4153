"""Images smaller than the crop: refused, left out or padded, alike in training, `data check` and the dry run."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from factories import texture
from selfsr import cli
from selfsr.data.check import check_folder
from selfsr.data.loader import Loader
from selfsr.data.spec import FolderSpec, PairsSpec
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.images.resize import imresize
from selfsr.recipe import parse_recipe
from selfsr.training.dryrun import dry_run

CPU = torch.device("cpu")
CROP_PX, SCALE = 24, 4
SIZES = {"a": (40, 30), "b": (23, 50), "c": (30, 41), "d": (48, 13), "e": (26, 24)}
LARGE = ["a", "c", "e"]


def put(path: Path, pixels: np.ndarray) -> None:
    write_image(path, DecodedImage(np.ascontiguousarray(pixels)))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """HR images of `SIZES`, LR images by taking every fourth pixel, and masks where red is bright."""
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        pixels = texture(seed, height, width)
        put(tmp_path / "hr" / f"{name}.png", pixels)
        even = pixels[: height // SCALE * SCALE, : width // SCALE * SCALE]
        put(tmp_path / "lr" / f"{name}.png", even[::SCALE, ::SCALE])
        put(tmp_path / "masks" / f"{name}.png", (255 * (pixels[..., :1] > 128)).astype(np.uint8))
        if name in LARGE:
            for kind in ("hr", "lr", "masks"):
                (tmp_path / "large" / kind).mkdir(parents=True, exist_ok=True)
                (tmp_path / "large" / kind / f"{name}.png").symlink_to(tmp_path / kind / f"{name}.png")
    return tmp_path


def spec(files: Path, kind: str, small: str, **options: Any) -> FolderSpec | PairsSpec:
    options = {"hr": files / "hr", "masks": files / "masks", "small": small, **options}
    if kind == "pairs":
        return PairsSpec(kind="pairs", lr=files / "lr", **options)
    return FolderSpec(kind="folder", **options)


def batches(data: FolderSpec | PairsSpec, steps: int = 4) -> list:
    loader = Loader(data.build(scale=SCALE, crop_px=CROP_PX), batch=4, seed=7, workers=0)
    return [batch for _ in range(steps) for batch in loader.prepare(next(loader), CPU, torch.contiguous_format, 1)]


KINDS = {"folder": {}, "degraded": {"degrade": "bsrgan"}, "pairs": {}}


@pytest.mark.parametrize("kind", KINDS)
def test_skip_trains_on_the_batches_of_a_folder_without_the_small_ones(kind, files, capsys):
    skipped = spec(files, kind, "skip", **KINDS[kind])
    large = spec(files / "large", kind, "error", **KINDS[kind])
    assert [path.stem for path in skipped.build(scale=SCALE, crop_px=CROP_PX).paths] == LARGE
    assert capsys.readouterr().err == (
        "data.small: 2 of 5 images are smaller than the crop of 24 x 24 pixels and are left out.\n"
    )
    for one, other in zip(batches(skipped), batches(large), strict=True):
        assert torch.equal(one.hr, other.hr)
        assert torch.equal(one.lr, other.lr)
        assert torch.equal(one.mask, other.mask)


def test_skip_asks_nothing_of_the_images_it_skips(files):
    for folder in ("lr", "masks"):
        (files / folder / "b.png").unlink()
    assert len(spec(files, "pairs", "skip").build(scale=SCALE, crop_px=CROP_PX)) == 3
    summary = check_folder(files / "hr", files / "lr", SCALE, CROP_PX, masks=files / "masks", small="skip")
    assert summary.problems == []
    assert summary.files == 3 + 4 + 3
    assert summary.notes["are smaller than the crop, and are left out"] == 2


def test_skip_goes_by_the_largest_crop_of_all_scales(files):
    data = spec(files, "folder", "skip").build_each({2: 12, 4: 24})
    assert [[path.stem for path in dataset.paths] for dataset in data] == [LARGE, LARGE]
    assert [dataset.crop_px for dataset in data] == [12, 24]


def test_skip_needs_one_image(files):
    message = (
        f"data.hr: expected an image of at least 52 x 52 pixels, the size of the crop, in {files}/hr, got 5 images "
        "that are all smaller; lower crop_px, or set data.small to pad."
    )
    for refuse in (
        lambda: spec(files, "folder", "skip").build(scale=SCALE, crop_px=52),
        lambda: check_folder(files / "hr", crop_px=52, small="skip"),
    ):
        with pytest.raises(InputError) as caught:
            refuse()
        assert str(caught.value) == message


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """Return the image cut to the grid of LR and continued by its mirror image at the right and below, far enough."""
    height, width = (side // SCALE * SCALE for side in pixels.shape[:2])
    pixels = pixels[:height, :width]
    pixels = np.concatenate([pixels, pixels[::-1], pixels], axis=0)
    return np.concatenate([pixels, pixels[:, ::-1], pixels], axis=1)


def crops(pixels: np.ndarray) -> dict[bytes, tuple[int, int]]:
    """Return the crops that an image may give, in all symmetries, with their corners; along a short side it is 0."""
    ends = [max(side // SCALE - CROP_PX // SCALE, 0) for side in pixels.shape[:2]]
    full, expected = mirrored(pixels), {}
    for row in range(ends[0] + 1):
        for column in range(ends[1] + 1):
            crop = full[row * SCALE :, column * SCALE :][:CROP_PX, :CROP_PX]
            for view in (crop, crop[:, ::-1]):
                for turn in range(4):
                    expected[np.ascontiguousarray(np.rot90(view, turn)).tobytes()] = (row, column)
    return expected


@pytest.mark.parametrize("kind", ["folder", "pairs"])
def test_pad_mirrors_images_masks_and_lr_alike(kind, files):
    dataset = spec(files, kind, "pad").build(scale=SCALE, crop_px=CROP_PX)
    assert len(dataset) == 5
    rng = np.random.default_rng(3)
    for index, (seed, size) in enumerate(enumerate(SIZES.values())):
        pixels = texture(seed, *size)
        expected = crops(pixels)
        for _ in range(20):
            crop = dataset.sample(index, rng)
            halo = dataset.halo_px
            hr = crop.hr[halo : halo + CROP_PX, halo : halo + CROP_PX]
            assert hr.shape == (CROP_PX, CROP_PX, 3)
            assert np.ascontiguousarray(hr).tobytes() in expected
            assert np.array_equal(crop.mask[..., 0], hr[..., 0] > 128)
            if kind == "pairs":
                # Every LR pixel is the corner of its block before the symmetry, so one of four corners after it.
                corners = [hr[row::SCALE, column::SCALE] for row in (0, 3) for column in (0, 3)]
                assert crop.lr.shape == (CROP_PX // SCALE, CROP_PX // SCALE, 3)
                if min(size) >= CROP_PX:
                    assert any(np.array_equal(crop.lr, corner) for corner in corners)
                else:  # blocks beyond the edge are mirrored, each with its own corner
                    matches = np.any([(crop.lr == corner).all(axis=2) for corner in corners], axis=0)
                    assert matches.all()


def test_pad_makes_lr_of_the_padded_image(files):
    for name in LARGE:
        (files / "hr" / f"{name}.png").unlink()
    for batch in batches(spec(files, "folder", "pad", masks=None)):
        assert batch.hr.shape[2:] == (CROP_PX, CROP_PX)
        assert batch.lr.shape[2:] == (CROP_PX // SCALE, CROP_PX // SCALE)
        rough = imresize(batch.hr, 1 / SCALE)[..., 2:-2, 2:-2]  # the border depends on the halo
        assert (rough - batch.lr[..., 2:-2, 2:-2]).abs().max() <= 0.51 / 255 + 1e-6


def test_pad_needs_a_pixel_of_lr(files):
    put(files / "hr" / "tiny.png", texture(9, 3, 30))
    with pytest.raises(InputError, match=r"tiny.png: expected at least 4 x 4 pixels, one pixel of LR, got 3 x 30"):
        spec(files, "folder", "pad", masks=None).build(scale=SCALE, crop_px=CROP_PX)
    (problem,) = check_folder(files / "hr", None, SCALE, CROP_PX, small="pad").problems
    assert str(problem) == (
        f"{files}/hr/tiny.png: expected at least 4 x 4 pixels, one pixel of LR, got 3 x 30 (height x width); leave it "
        "out."
    )


def test_the_command_has_the_option(files):
    def check(*options: str):
        return CliRunner().invoke(cli.app, ["data", "check", str(files / "hr"), *options])

    refused = check("--crop", "24")
    assert refused.exit_code == 1
    assert "3 of 5 files are usable." in refused.stdout
    for small, note in (("skip", "left out"), ("pad", "padded")):
        done = check("--crop", "24", "--small", small)
        assert done.exit_code == 0
        assert f"Note: 2 are smaller than the crop, and are {note}\n" in done.stdout
    unused = check("--small", "skip")
    assert "check: expected no --small without --crop" in str(unused.exception)


@pytest.mark.parametrize("small", ["skip", "pad"])
def test_a_dry_run_agrees_with_training(small, files, tiny, capsys):
    document = copy.deepcopy(tiny)
    document["data"] = {"kind": "folder", "hr": str(files / "hr"), "small": small}
    del document["method"]["terms"]["similarity"]
    dry_run(parse_recipe({**document, "scale": 4, "crop_px": 24, "evaluate": None}, "test"), device="cpu")
    count = 3 if small == "skip" else 5
    assert f"Data: {count} files, all usable." in capsys.readouterr().err


def test_a_dry_run_lists_problems_by_the_same_options(files, tiny):
    (files / "hr" / "broken.png").write_bytes(b"no image")
    document = {**tiny, "scale": 4, "crop_px": 24, "evaluate": None}
    document["data"] = {"kind": "folder", "hr": str(files / "hr"), "small": "skip"}
    with pytest.raises(InputError, match=r"selfsr data check .*hr --crop 24 --small skip; the first is .*broken\.png"):
        dry_run(parse_recipe(document, "test"), device="cpu")
