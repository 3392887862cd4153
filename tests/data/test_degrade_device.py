"""Training samples that the device degrades: equal to those of the loader, and as independent of workers."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from selfsr.data.loader import Loader, choose_workers
from selfsr.data.spec import FolderSpec
from selfsr.images.color import rgb_to_luma
from selfsr.images.files import DecodedImage, write_image
from selfsr.step import Batch

pytestmark = pytest.mark.usefixtures("one_thread")

# Without noise, whose bits differ by place.
QUIET = {
    "bsrgan": {"kind": "bsrgan", "noise_level": [0, 0], "noise": {"gray": 1.0}},
    "real_esrgan": {
        "kind": "real_esrgan",
        "preset": "stablesr_ssl",
        "first": {"gaussian": 1.0, "gaussian_sigma": [0, 0]},
        "second": {"gaussian": 1.0, "gaussian_sigma": [0, 0]},
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("device_photos")
    for i in range(5):
        image = np.random.default_rng(i).random((100 + 4 * i, 120, 3)).astype(np.float32)
        image = np.clip(cv2.GaussianBlur(image, (0, 0), 3) * 4 - 1.5, 0, 1)
        depth = 65535 if i == 0 else 255
        write_image(folder / f"{i}.png", DecodedImage((image * depth).astype(np.uint16 if i == 0 else np.uint8)))
    return folder


def loader(
    folder: Path, degrade="ssl_test", on: str = "device", crop_px: int = 48, scale: int = 4, **options
) -> Loader:
    keys = {key: options.pop(key) for key in ("lr_bits", "channels", "masks") if key in options}
    spec = FolderSpec(kind="folder", hr=folder, degrade=degrade, degrade_on=on, **keys)
    return Loader(spec.build(scale=scale, crop_px=crop_px), **{"batch": 4, "seed": 3, "workers": 0, **options})


def batches(source: Loader, count: int, device: torch.device) -> list[Batch]:
    made = [source.prepare(raw, device)[0].to(torch.device("cpu")) for raw in itertools.islice(source, count)]
    source.close()
    return made


def same(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.hr, b.hr) and torch.equal(a.lr, b.lr) for a, b in pairs)


@pytest.mark.parametrize("degrade", ["real_esrgan", "bsrgan"])
def test_batches_do_not_depend_on_workers_processes_or_resuming(photos, degrade, device):
    whole = batches(loader(photos, degrade), 4, device)
    assert same(batches(loader(photos, degrade, workers=2), 4, device), whole)
    assert same(batches(loader(photos, degrade, start_step=2, workers=1), 2, device), whole[2:])
    shares = [batches(loader(photos, degrade, rank=rank, world=2), 4, device) for rank in range(2)]
    joined = [Batch(torch.cat([a.hr, b.hr]), torch.cat([a.lr, b.lr])) for a, b in zip(*shares, strict=True)]
    assert same(joined, whole)
    assert not any(
        torch.equal(a.lr, b.lr) for a, b in zip(batches(loader(photos, degrade, seed=4), 4, device), whole, strict=True)
    )
    assert len({sample.numpy().tobytes() for batch in whole for sample in batch.lr}) == 16


@pytest.mark.parametrize("kind", QUIET)
def test_batch_without_noise_equals_that_of_the_loader(photos, kind, device):
    there = batches(loader(photos, QUIET[kind]), 4, device)
    here = batches(loader(photos, QUIET[kind], on="loader"), 4, device)
    for one, other in zip(there, here, strict=True):
        assert torch.equal(one.hr, other.hr)
        assert one.lr.shape == other.lr.shape
    change = torch.cat([(one.lr - other.lr).abs().flatten(1) for one, other in zip(there, here, strict=True)]) * 255
    assert (change.amax(1) < 0.01).sum() >= 10  # of 16; halves that round the other way are the rest
    assert change.square().mean(1).sqrt().max() < 1.5
    # The mutant that cuts one pixel further.
    moved = torch.cat([(a.lr[..., 1:] - b.lr[..., :-1]).abs().flatten(1) for a, b in zip(there, here, strict=True)])
    assert (255 * moved.amax(1) > 3).all()


def test_hr_is_sharpened_by_usm(photos, device):
    spec = {**QUIET["real_esrgan"], "preset": "real_esrgan", "usm": True}
    (there,), (here,) = (batches(loader(photos, spec, on=on), 1, device) for on in ("device", "loader"))
    (plain,) = batches(loader(photos, QUIET["real_esrgan"]), 1, device)
    assert (there.hr - here.hr).abs().max() < 0.5 / 255 + 1e-5  # the loader rounds to the depth of the file
    assert (there.hr - plain.hr).abs().max() > 5 / 255


@pytest.mark.parametrize("bits", [8, 16, None])
def test_lr_has_the_depth_of_lr_bits(photos, bits, device):
    spec = {"kind": "real_esrgan", "clean": 1.0}  # plain bicubic, which is not at levels
    (there,), (here,) = (batches(loader(photos, spec, on=on, lr_bits=bits), 1, device) for on in ("device", "loader"))
    # Sums in float32 can end on the other side of a half.
    assert (there.lr - here.lr).abs().max() < {8: 1.01 / 255, 16: 1.01 / 65535, None: 1e-6}[bits]
    assert (there.lr != here.lr).float().mean() < {8: 0.01, 16: 0.1, None: 1}[bits]
    for depth in (8, 16):
        steps = there.lr.double() * (2**depth - 1)
        assert ((steps - steps.round()).abs().max() < 1e-2) == (bits is not None and depth >= bits)


def test_luma_is_taken_after_the_degradation(photos, device):
    (color,), (luma,) = (batches(loader(photos, channels=channels), 1, device) for channels in (3, 1))
    assert torch.equal(rgb_to_luma(color.hr), luma.hr)
    assert torch.equal(rgb_to_luma(color.lr), luma.lr)


def test_masks_follow_their_crops(photos, tmp_path, device):
    for i in range(5):
        edges = np.random.default_rng(10 + i).random((100 + 4 * i, 120, 1)) < 0.3
        write_image(tmp_path / f"{i}.png", DecodedImage((edges * 255).astype(np.uint8)))
    there, here = (batches(loader(photos, on=on, masks=tmp_path), 3, device) for on in ("device", "loader"))
    for one, other in zip(there, here, strict=True):
        assert one.mask is not None
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.hr, other.hr)


def test_each_step_is_degraded_at_its_own_scale(photos, device):
    spec = FolderSpec(kind="folder", hr=photos, degrade="bsrgan_ssl", degrade_on="device")
    source = Loader(spec.build_each({2: 32, 4: 64}), batch=4, seed=3, workers=0)
    shapes = {tuple(batch.hr.shape[2:] + batch.lr.shape[2:]) for batch in batches(source, 12, device)}
    assert shapes == {(32, 32, 16, 16), (64, 64, 16, 16)}


def test_prepare_splits_the_batch_in_order(photos, device):
    source = loader(photos)
    raw = next(source)
    (whole,), parts = source.prepare(raw, device), source.prepare(raw, device, accumulate=2)
    assert torch.equal(torch.cat([part.lr for part in parts]), whole.lr)
    assert torch.equal(torch.cat([part.hr for part in parts]), whole.hr)


def test_degradation_ignores_autocast(photos, device):
    source = loader(photos, "real_esrgan")
    raw = next(source)
    (plain,) = source.prepare(raw, device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        (under,) = source.prepare(raw, device)
    assert torch.equal(plain.lr, under.lr)
    assert torch.equal(plain.hr, under.hr)


def test_device_degradation_gets_workers_and_needs_degrade(photos):
    assert loader(photos, workers="auto").workers == choose_workers(False)
    with pytest.raises(
        ValidationError, match="degrade_on: device needs degrade; leave it out, bicubic LR is always made on the device"
    ):
        FolderSpec(kind="folder", hr=photos, degrade_on="device")
