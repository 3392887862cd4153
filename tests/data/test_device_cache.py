"""`data.cache: device`: crops that the device cuts equal those that the loader cuts, bit for bit."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from factories import recipe_error, texture
from run_folders import assert_same, read_checkpoint, train
from selfsr.data import loader as loader_module
from selfsr.data.loader import Loader
from selfsr.data.sources_spec import DataSpec
from selfsr.data.window import Window
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.step import Batch

CPU = torch.device("cpu")
DEGRADED = {"degrade": "real_esrgan_ssl", "degrade_on": "device"}
AUGMENT = {"mixup": 0.3, "cutmix": 0.3, "resizemix": 0.2}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with HR images of several sizes, one of them gray, their LR images and masks."""
    root = tmp_path_factory.mktemp("images")
    for index in range(5):
        pixels = texture(index, 45 + 2 * index, 50 - index)
        pixels = pixels[..., :1] if index == 3 else pixels
        write_image(root / "hr" / f"{index}.png", DecodedImage(pixels))
        write_image(root / "lr" / f"{index}.png", DecodedImage(np.ascontiguousarray(pixels[:-1:2, :-1:2])))
        edges = np.where(pixels[..., :1] > 128, 255, 0).astype(np.uint8)
        write_image(root / "masks" / f"{index}.png", DecodedImage(edges))
    return root


def make_loader(document: dict, crops_px: dict[int, int], **options) -> Loader:
    spec = TypeAdapter(DataSpec).validate_python(document)
    return Loader(spec.build_each(crops_px), batch=6, seed=5, augment=spec.augment, **{"workers": 0, **options})


def read_batches(loader: Loader, count: int = 5) -> list[Batch]:
    loader.fill_device(CPU)
    batches = [loader.prepare(raw, CPU)[0] for raw in itertools.islice(loader, count)]
    loader.close()
    return batches


def put_cache(document: dict, cache: str) -> dict:
    if document["kind"] == "sources":
        entries = document["sources"].items()
        sources = {name: {**entry, "data": {**entry["data"], "cache": cache}} for name, entry in entries}
        return {**document, "sources": sources}
    return {**document, "cache": cache}


def make_document(root: Path, name: str) -> dict:
    folder = {"kind": "folder", "hr": str(root / "hr")}
    pairs = {"kind": "pairs", "hr": str(root / "hr"), "lr": str(root / "lr")}
    return {
        "bicubic": folder,
        "luma": {**folder, "channels": 1},
        "pairs": pairs,
        "masks": {**pairs, "masks": str(root / "masks")},
        "degraded": {**folder, **DEGRADED},
        "mixed": {**folder, "augment": AUGMENT},
        "padded": {**folder, "small": "pad"},
        "sources": {
            "kind": "sources",
            "sources": {"a": {"share": 1, "data": pairs}, "b": {"share": 2, "data": {**folder, **DEGRADED}}},
        },
    }[name]


def test_places_are_those_of_the_pixels_of_the_window() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (13, 9, 3), np.uint8)
    before = rng.integers(0, 256, (7, 3), np.uint8)
    memory = np.concatenate([before, image.reshape(-1, 3)])
    for symmetry in range(8):
        for top, left, side in ((2, 3, 4), (-5, -2, 6), (8, 5, 30), (0, 0, 1)):
            window = Window(top, left, side, symmetry, height=12, width=8)
            rows, columns = window.place(7, 9)
            np.testing.assert_array_equal(memory[rows[:, None] + columns], window.cut(image))


NAMES = ("bicubic", "luma", "pairs", "masks", "degraded", "mixed", "padded", "sources")


@pytest.mark.parametrize(("name", "workers"), [*((name, 0) for name in NAMES), ("bicubic", 2), ("sources", 2)])
def test_batches_are_those_of_the_other_caches(images: Path, name: str, workers: int) -> None:
    document, crops_px = make_document(images, name), {2: 64 if name == "padded" else 32}
    expected = read_batches(make_loader(put_cache(document, "off"), crops_px))
    batches = read_batches(make_loader(put_cache(document, "device"), crops_px, workers=workers))
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.hr, other.hr)
        assert torch.equal(batch.lr, other.lr)
        assert (batch.mask is None) == (other.mask is None) == (name != "masks")
        assert batch.mask is None or torch.equal(batch.mask, other.mask)


def test_several_scales_share_the_images(images: Path) -> None:
    document, crops_px = make_document(images, "bicubic"), {2: 24, 3: 36}
    expected = read_batches(make_loader(document, crops_px), 8)
    loader = make_loader(put_cache(document, "device"), crops_px)
    batches = read_batches(loader, 8)
    assert {batch.hr.shape[-1] for batch in batches} == {24, 36}
    assert all(torch.equal(batch.lr, other.lr) for batch, other in zip(batches, expected, strict=True))
    first, second = (dataset.stores["hr"] for dataset in loader.datasets)
    assert first is second


def test_the_loader_sends_places_instead_of_pixels(images: Path) -> None:
    loader = make_loader(put_cache(make_document(images, "pairs"), "device"), {2: 32})
    (before,) = next(loader).parts
    assert before.hr.dtype == torch.uint8  # nothing is on the device yet
    loader.fill_device(CPU)
    (part,) = next(loader).parts
    assert (part.hr.dtype, part.hr.shape, part.lr.shape) == (torch.int64, (6, 2, 32), (6, 2, 16))


def test_an_unreadable_image_is_replaced_and_reported_as_with_other_caches(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (images / "hr").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "2.png"
    content = damaged.read_bytes()
    reports = []
    for cache in ("off", "device"):
        damaged.write_bytes(content)
        loader = make_loader({"kind": "folder", "hr": str(tmp_path), "cache": cache}, {2: 32})
        damaged.write_bytes(content[:300])
        batches = read_batches(loader)
        reports.append((torch.stack([batch.hr for batch in batches]), capsys.readouterr().err.splitlines()[-1]))
        assert loader.skipped == 1
    assert torch.equal(reports[0][0], reports[1][0])
    assert reports[0][1] == reports[1][1]
    assert "2.png" in reports[0][1]


def test_images_that_do_not_fit_are_refused_with_the_numbers(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make_loader(put_cache(make_document(images, "pairs"), "device"), {2: 32})
    need_bytes = sum(store.decoded_bytes for store in loader.datasets[0].stores.values())
    monkeypatch.setattr(loader_module, "measure_free_bytes", lambda device: need_bytes)
    with pytest.raises(
        InputError,
        match=r"^data.cache: expected at most 0.0 GB of decoded images for cache: device, 80% of the free memory of "
        r"cpu, got 0.0 GB; set cache to memory or disk\.$",
    ):
        loader.fill_device(CPU)
    monkeypatch.setattr(loader_module, "measure_free_bytes", lambda device: need_bytes * 5 // 4 + 1)
    loader.fill_device(CPU)


def test_images_of_16_bits_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", DecodedImage(texture(0, 40, 40)))
    write_image(tmp_path / "b.png", DecodedImage(texture(1, 40, 40).astype(np.uint16) * 257))
    with pytest.raises(InputError, match=r"data.hr: expected images of 8 bits for cache: device, got 1 of 16 bits, "):
        make_loader({"kind": "folder", "hr": str(tmp_path), "cache": "device"}, {2: 32})


def test_a_loader_that_degrades_needs_the_pixels(tiny: dict) -> None:
    tiny["data"] |= {"cache": "device", "degrade": "real_esrgan_ssl"}
    assert "cache: device needs degrade_on: device with degrade" in recipe_error(tiny)


def test_a_run_is_as_without_it(tiny: dict, tmp_path: Path) -> None:
    folders = []
    for cache in ("memory", "device"):
        tiny["data"]["cache"] = cache
        folders.append(train({**tiny, "evaluate": None, "steps": 3}, tmp_path / cache))
    assert_same(*(read_checkpoint(folder) for folder in folders))
