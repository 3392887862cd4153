import itertools
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsr.data.loader import Loader, choose_workers
from selfsr.data.spec import FolderSpec, PairsSpec
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, image_to_tensor, read_image, write_image
from selfsr.images.resize import bicubic_lr, imresize

CPU = torch.device("cpu")


def put(path: Path, pixels: np.ndarray) -> Path:
    write_image(path, DecodedImage(pixels))
    return path


def noise(height: int, width: int, channels: int = 3, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, (height, width, channels)).astype(dtype)


@pytest.fixture
def photos(tmp_path) -> Path:
    for i in range(7):
        put(tmp_path / f"{i}.png", noise(20 + i, 24, seed=i))
    return tmp_path


def loader(folder: Path, cache: str = "off", **options) -> Loader:
    dataset = FolderSpec(kind="folder", hr=folder, cache=cache).build(scale=2, crop_px=12)
    return Loader(dataset, **{"batch": 4, "seed": 5, "workers": 0, **options})


def take(source: Loader, count: int) -> list[torch.Tensor]:
    crops = [raw.parts[0].hr for raw in itertools.islice(source, count)]
    source.close()
    return crops


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


# --- determinism -------------------------------------------------------------------------------------------------


def test_batches_do_not_depend_on_workers_or_cache(photos):
    expected = take(loader(photos), 6)
    assert same(take(loader(photos), 6), expected)
    assert same(take(loader(photos, cache="memory"), 6), expected)
    assert same(take(loader(photos, workers=2), 6), expected)
    assert same(take(loader(photos, cache="memory", workers=2), 6), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_start_step_equals_skipping_steps(photos, workers):
    whole = take(loader(photos), 9)
    resumed = loader(photos, start_step=6, workers=workers)
    first = next(resumed)
    assert first.step == 6
    assert same([first.parts[0].hr, *take_open(resumed, 2)], whole[6:])
    resumed.close()


def take_open(source: Loader, count: int) -> list[torch.Tensor]:
    return [raw.parts[0].hr for raw in itertools.islice(source, count)]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_batches_of_one_process(photos, world):
    whole = take(loader(photos), 5)
    shares = [take(loader(photos, rank=rank, world=world), 5) for rank in range(world)]
    assert same([torch.cat(parts) for parts in zip(*shares, strict=True)], whole)


def test_seed_changes_all_batches_and_samples_differ(photos):
    first, other = take(loader(photos), 5), take(loader(photos, seed=6), 5)
    assert not any(map(torch.equal, first, other))
    samples = {sample.numpy().tobytes() for crops in first for sample in crops}
    assert len(samples) == 20


@pytest.mark.parametrize("count", [1, 3, 7])
def test_each_epoch_has_every_image_once_in_its_own_order(tmp_path, count):
    for i in range(count):
        put(tmp_path / f"{i}.png", np.full((12, 12, 3), 10 * i, np.uint8))
    batches = take(loader(tmp_path, batch=5), 14)
    shown = [int(sample[0, 0, 0]) // 10 for crops in batches for sample in crops]
    epochs = [shown[i : i + count] for i in range(0, 70 // count * count, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count == 7:
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_loader_keeps_the_random_state_of_training(photos):
    torch.manual_seed(3)
    expected = torch.rand(3)
    for workers in (0, 1):
        torch.manual_seed(3)
        take(loader(photos, workers=workers), 2)
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="only forked workers share memory")
def test_workers_share_the_cache(photos):
    source = loader(photos, cache="memory", workers=1)
    crops = take(source, 6)
    for path in photos.iterdir():
        path.unlink()
    again = Loader(source.datasets, batch=4, seed=5, workers=0)
    assert same(take(again, 6), crops)
    assert again.skipped == 0


def test_pickled_dataset_reads_files(photos):
    dataset = FolderSpec(kind="folder", hr=photos, cache="memory").build(scale=2, crop_px=12)
    copy = pickle.loads(pickle.dumps(dataset))
    assert (dataset.cached, copy.cached) == (True, False)
    crops = [data.sample(3, np.random.default_rng(0)).hr for data in (dataset, copy)]
    assert np.array_equal(*crops)


# --- what reaches the network ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_is_the_crop_of_the_lr_of_the_full_image(tmp_path, scale):
    side = 5 * scale
    put(tmp_path / "a.png", noise(side + 1, side + scale - 1))
    spec = FolderSpec(kind="folder", hr=tmp_path, lr_bits=None)
    source = Loader(spec.build(scale=scale, crop_px=side), batch=8, seed=0, workers=0)
    (batch,) = source.prepare(next(source), CPU)
    image = image_to_tensor(read_image(tmp_path / "a.png"))[..., :side, :side]
    whole = imresize(image, scale=1 / scale)
    matched = 0
    for hr, lr in zip(batch.hr, batch.lr, strict=True):
        for flips in itertools.product([False, True], repeat=3):
            if torch.equal(_apply_flips(image[0], flips), hr):
                torch.testing.assert_close(lr, _apply_flips(whole[0], flips), rtol=0, atol=1e-6)
                matched += 1
    assert matched == 8


def _apply_flips(image: torch.Tensor, flips: tuple[bool, ...]) -> torch.Tensor:
    for flip, axis in zip(flips, (-1, -2), strict=False):
        image = image.flip(axis) if flip else image
    return image.mT if flips[2] else image


def test_lr_is_rounded_to_8_bit(photos):
    source = loader(photos)
    (batch,) = source.prepare(next(source), CPU)
    levels = batch.lr.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert batch.hr.shape == (4, 3, 12, 12)
    assert batch.lr.shape == (4, 3, 6, 6)
    assert batch.hr.dtype == batch.lr.dtype == torch.float32
    bare = bicubic_lr(batch.hr, 2)
    assert torch.equal(bare[..., 2:-2, 2:-2], batch.lr[..., 2:-2, 2:-2])
    assert not torch.equal(bare, batch.lr), "the halo is expected to matter at the border"


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_prepare_splits_the_batch_in_order(photos, memory_format):
    source = loader(photos)
    raw = next(source)
    (whole,) = source.prepare(raw, CPU, memory_format)
    parts = source.prepare(raw, CPU, memory_format, accumulate=2)
    assert [part.hr.shape[0] for part in parts] == [2, 2]
    assert torch.equal(torch.cat([part.hr for part in parts]), whole.hr)
    assert torch.equal(torch.cat([part.lr for part in parts]), whole.lr)
    for part in (whole, *parts):
        assert part.hr.is_contiguous(memory_format=memory_format)
        assert part.lr.is_contiguous(memory_format=memory_format)
    default = source.prepare(raw, CPU)[0]
    assert torch.equal(default.lr, whole.lr)


def test_pairs_are_not_changed(tmp_path):
    lr = noise(6, 6)
    put(tmp_path / "lr" / "a.png", lr)
    put(tmp_path / "hr" / "a.png", np.kron(lr, np.ones((2, 2, 1), np.uint8)))
    spec = PairsSpec(kind="pairs", hr=tmp_path / "hr", lr=tmp_path / "lr")
    source = Loader(spec.build(scale=2, crop_px=8), batch=6, seed=0, workers=0)
    (batch,) = source.prepare(next(source), CPU)
    assert torch.equal(batch.lr.repeat_interleave(2, 2).repeat_interleave(2, 3), batch.hr)
    assert set((batch.lr * 255).round().int().ravel().tolist()) <= set(lr.ravel().tolist())


def test_batch_mixes_8_and_16_bit(tmp_path):
    put(tmp_path / "a.png", np.full((12, 12, 3), 51, np.uint8))
    put(tmp_path / "b.png", np.full((12, 12, 3), 13107 + 2, np.uint16))
    source = loader(tmp_path, batch=2)
    (batch,) = source.prepare(next(source), CPU)
    assert sorted(batch.hr[:, 0, 0, 0].tolist()) == pytest.approx([0.2, 13109 / 65535], abs=1e-7)


def test_prepare_keeps_all_levels_of_16_bit(tmp_path):
    levels = np.arange(65536).astype(np.uint16).reshape(256, 256, 1)
    put(tmp_path / "a.png", levels)
    dataset = FolderSpec(kind="folder", hr=tmp_path).build(scale=2, crop_px=256)
    source = Loader(dataset, batch=1, seed=0, workers=0)
    (batch,) = source.prepare(next(source), CPU)
    assert torch.equal(batch.hr[0, 1].ravel().sort().values, torch.arange(65536) / 65535)


# --- trouble -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_file_is_replaced_reported_once_and_counted(photos, workers, capfd):
    good = take(loader(photos), 8)
    source = loader(photos, workers=workers)
    (photos / "3.png").write_bytes(b"rubbish")
    (photos / "5.png").unlink()
    crops = take_open(source, 8)
    source.close()
    assert source.skipped == 2
    words = " ".join(capfd.readouterr().err.split())
    assert words.count("Skipping an unreadable file") == 2
    assert words.count("3.png: expected a readable image") == 1
    assert words.count("5.png: expected an image, got a path that does not exist") == 1
    changed = [not torch.equal(a, b) for a, b in zip(torch.cat(good), torch.cat(crops), strict=True)]
    assert sum(changed) == 9  # two bad files in each of four epochs, one in the four samples after them
    assert len({crop.numpy().tobytes() for crop in torch.cat(crops)}) == 32


def test_replacement_does_not_depend_on_workers(photos):
    sources = [loader(photos, workers=workers) for workers in (0, 1, 2)]
    (photos / "2.png").write_bytes(b"")
    taken = [take(source, 6) for source in sources]
    assert same(taken[0], taken[1])
    assert same(taken[0], taken[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_without_readable_images_stops(photos, workers):
    source = loader(photos, workers=workers)
    for path in photos.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"data.hr: expected readable images, got none of 7; the first: .*empty"):
        next(source)
    source.close()


def test_killed_worker_is_one_sentence(photos):
    source = loader(photos, workers=1)
    next(source)
    os.kill(source._steps._workers[0].pid, signal.SIGKILL)
    time.sleep(0.2)  # its death must not be an error of any line of the training step
    with pytest.raises(
        InputError, match=r"data: expected running loader processes, got .*; set workers to 0, or data.cache"
    ):
        list(itertools.islice(source, 50))
    source.close()


def test_close_stops_the_workers(photos):
    source = loader(photos, workers=2)
    next(source)
    workers = list(source._steps._workers)
    assert all(worker.is_alive() for worker in workers)
    source.close()
    assert not any(worker.is_alive() for worker in workers)


def test_workers_ignore_ctrl_c(photos):
    expected = take(loader(photos), 12)
    source = loader(photos, workers=1)
    crops = take_open(source, 1)
    os.kill(source._steps._workers[0].pid, signal.SIGINT)
    crops += take_open(source, 11)
    assert same(crops, expected)
    source.close()


def test_batch_must_be_a_multiple_of_world(photos):
    with pytest.raises(InputError, match="batch: expected a multiple of the 3 processes, got 4; change one of them"):
        loader(photos, rank=0, world=3)


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(1, 1, 1), (2, 1, 1), (16, 1, 15), (16, 4, 3), (16, 16, 1), (128, 2, 16)]
)
def test_choose_workers_by_cores_and_processes(monkeypatch, cores, processes, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert choose_workers(cached=False) == workers
    assert choose_workers(cached=True) == 0


def test_auto_workers_depend_on_the_dataset(photos):
    assert loader(photos, cache="memory", workers="auto").workers == 0
    assert loader(photos, cache="off", workers="auto").workers == choose_workers(cached=False)
