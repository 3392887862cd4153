"""Degraded training samples: independent of workers and processes, and aligned with their ground truth."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from selfsr.data import degraded as degraded_module
from selfsr.data.loader import Loader, choose_workers
from selfsr.data.spec import FolderSpec
from selfsr.degrade.blur import sharpen
from selfsr.errors import InputError
from selfsr.images.color import rgb_to_luma
from selfsr.images.files import DecodedImage, write_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("degrade_photos")
    for i in range(5):
        image = np.random.default_rng(i).random((100 + 4 * i, 120, 3)).astype(np.float32)
        image = np.clip(cv2.GaussianBlur(image, (0, 0), 3) * 4 - 1.5, 0, 1)
        write_image(folder / f"{i}.png", DecodedImage((image * 255).astype(np.uint8)))
    return folder


def loader(folder: Path, degrade="real_esrgan_ssl", crop_px: int = 48, scale: int = 4, lr_bits=8, **options) -> Loader:
    spec = FolderSpec(kind="folder", hr=folder, degrade=degrade, lr_bits=lr_bits)
    return Loader(spec.build(scale=scale, crop_px=crop_px), **{"batch": 4, "seed": 3, "workers": 0, **options})


def take(source: Loader, count: int) -> list[torch.Tensor]:
    """Return what both images of each step hold, as one tensor."""
    raws = list(itertools.islice(source, count))
    source.close()
    return [torch.cat([raw.parts[0].hr.flatten(1), raw.parts[0].lr.flatten(1)], 1) for raw in raws]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize("degrade", ["real_esrgan", "bsrgan"])
def test_batches_do_not_depend_on_workers_processes_or_resuming(photos, degrade):
    whole = take(loader(photos, degrade), 4)
    assert same(take(loader(photos, degrade, workers=2), 4), whole)
    assert same(take(loader(photos, degrade, start_step=2, workers=1), 2), whole[2:])
    shares = [take(loader(photos, degrade, rank=rank, world=2), 4) for rank in range(2)]
    assert same([torch.cat(parts) for parts in zip(*shares, strict=True)], whole)
    assert not any(map(torch.equal, take(loader(photos, degrade, seed=4), 4), whole))
    rows = {row.numpy().tobytes() for step in whole for row in step}
    assert len(rows) == 16


def test_each_sample_has_its_own_degradation(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", DecodedImage(np.full((48, 48, 3), 128, np.uint8)))
    plans = []
    real = degraded_module.degrade_image

    def spy(spec, image, scale, rng):
        plan = spec.sample(np.random.default_rng(rng.bit_generator.seed_seq), *image.shape[:2], scale)
        plans.append(tuple(step.name for step in plan))
        return real(spec, image, scale, rng)

    monkeypatch.setattr(degraded_module, "degrade_image", spy)
    next(loader(tmp_path, "bsrgan", batch=8))
    assert len(plans) == 8
    assert len(set(plans)) > 4


@pytest.mark.parametrize("bits", [8, 16, None])
def test_batches_have_size_range_and_depth(photos, bits):
    source = loader(photos, "real_esrgan", lr_bits=bits)
    (batch,) = source.prepare(next(source), CPU)
    assert batch.hr.shape == (4, 3, 48, 48)
    assert batch.lr.shape == (4, 3, 12, 12)
    assert batch.lr.dtype == torch.float32
    assert batch.lr.min() >= 0
    assert batch.lr.max() <= 1
    steps = batch.lr * 255
    assert ((steps - steps.round()).abs().max() < 1e-4) == (bits == 8)


@pytest.mark.parametrize("scale", [2, 4])
def test_lr_and_hr_are_aligned(photos, scale):
    mild = {"kind": "bsrgan", "preset": "bsrgan_ssl_test"}
    source = loader(photos, mild, scale=scale, crop_px=48, batch=24)
    (batch,) = source.prepare(next(source), CPU)
    small = torch.nn.functional.interpolate(batch.hr, size=batch.lr.shape[-2:], mode="area")
    # Each sample agrees with its own ground truth best: not shifted by a pixel, not turned.
    for lr, hr in zip(batch.lr, small, strict=True):
        best = (lr - hr).square().mean()
        others = [torch.roll(hr, shift, axis) for shift in (-1, 1) for axis in (1, 2)]
        others += [hr.flip(1), hr.flip(2), hr.transpose(1, 2)]
        assert all((lr - other).square().mean() > best for other in others)


def test_hr_is_that_of_the_file_unless_sharpened(tmp_path):
    image = np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)
    image = (np.clip(cv2.GaussianBlur(image, (0, 0), 2) * 3 - 1, 0, 1) * 255).astype(np.uint8)
    write_image(tmp_path / "a.png", DecodedImage(image))
    plain = next(loader(tmp_path, {"kind": "real_esrgan", "usm": False}, batch=1)).parts[0].hr[0].numpy()
    sharp = next(loader(tmp_path, {"kind": "real_esrgan", "usm": True}, batch=1)).parts[0].hr[0].numpy()
    turns = [np.rot90(t, k) for t in (image, image.swapaxes(0, 1)) for k in range(4)]
    assert sum(np.array_equal(plain, turn) for turn in turns) == 1
    assert np.abs(sharp.astype(int) - plain).max() > 5
    # The image is as large as the crop: its surroundings are mirrored, the edge repeated.
    spare = 92
    padded = np.pad(plain, ((spare, spare), (spare, spare), (0, 0)), "symmetric").astype(np.float32) / 255
    expected = sharpen(padded)[spare:-spare, spare:-spare]
    inner = slice(12, -12)
    assert np.abs(sharp[inner, inner] / 255 - expected[inner, inner]).max() < 2 / 255


def test_jpeg_grid_has_random_positions(tmp_path):
    """With the crop always at a corner of the grid, block edges would always lie at multiples of 8."""
    ramp = np.clip(np.add.outer(np.arange(96.0), np.arange(96.0)) * 1.3, 0, 255)
    write_image(tmp_path / "a.png", DecodedImage(np.repeat(ramp[..., None], 3, 2).astype(np.uint8)))
    spec = {"kind": "bsrgan", "preset": "bsrgan_ssl", "jpeg_quality": [8, 8], "noise_level": [0, 0], "halve": 0}
    spec |= {"noise": {"gray": 1.0}}
    source = loader(tmp_path, spec, crop_px=96, scale=2, batch=40)
    (batch,) = source.prepare(next(source), CPU)
    jumps = (batch.lr[:, :, :, 1:] - batch.lr[:, :, :, :-1]).abs().mean((1, 2))  # [n, 47] between columns
    phases = {int(torch.stack([row[k::8].mean() for k in range(8)]).argmax()) for row in jumps}
    assert len(phases) >= 6


def test_luma_is_taken_after_the_degradation(photos):
    def batch(channels):
        spec = FolderSpec(kind="folder", hr=photos, degrade="bsrgan", channels=channels)
        source = Loader(spec.build(scale=4, crop_px=48), batch=4, seed=3, workers=0)
        return source.prepare(next(source), CPU)[0]

    color, luma = batch(3), batch(1)
    for whole, part in ((color.hr, luma.hr), (color.lr, luma.lr)):
        assert part.shape[1] == 1
        assert torch.equal(part, rgb_to_luma(whole))


def test_each_step_is_degraded_at_its_own_scale(photos):
    spec = FolderSpec(kind="folder", hr=photos, degrade="bsrgan_ssl")
    source = Loader(spec.build_each({2: 32, 4: 64}), batch=4, seed=3, workers=0)
    shapes = {
        (tuple(raw.parts[0].hr.shape[1:]), tuple(raw.parts[0].lr.shape[1:])) for raw in itertools.islice(source, 12)
    }
    assert shapes == {((32, 32, 3), (16, 16, 3)), ((64, 64, 3), (16, 16, 3))}
    tiny = {"kind": "real_esrgan", "second": {"resize_range": [0.03, 1.0]}}
    with pytest.raises(InputError, match=r"got 0\.72 pixels for a crop .* at scale 8; raise"):
        FolderSpec(kind="folder", hr=photos, degrade=tiny).build_each({2: 96, 8: 8})


def test_degrading_datasets_get_worker_processes(photos, monkeypatch):
    spec = FolderSpec(kind="folder", hr=photos, cache="memory", degrade="bsrgan")
    data = spec.build(scale=4, crop_px=48)
    assert data.cached
    assert Loader(data, batch=4, seed=1).workers == choose_workers(False) >= 1
    plain = FolderSpec(kind="folder", hr=photos, cache="memory").build(scale=4, crop_px=48)
    assert Loader(plain, batch=4, seed=1).workers == 0


def test_build_refuses_impossible_degradations(photos):
    def build(scale=4, **keys):
        return FolderSpec(kind="folder", hr=photos, **keys).build(scale=scale, crop_px=16)

    tiny = {"kind": "real_esrgan", "first": {"resize_range": [0.001, 1.0]}}
    with pytest.raises(InputError, match=r"data\.degrade: expected every step to leave at least one pixel.*raise"):
        build(degrade=tiny)
    with pytest.raises(InputError, match="expected a scale of 2 or more"):
        build(scale=1, degrade="bsrgan")
    with pytest.raises(InputError, match="smaller"):
        FolderSpec(kind="folder", hr=photos, degrade="bsrgan").build(scale=4, crop_px=104)
