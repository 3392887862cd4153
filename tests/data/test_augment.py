"""Mixes of training samples, by their definitions, and their independence of how a batch is split."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from factories import recipe_error
from run_folders import assert_resumes, read_checkpoint
from selfsr.cli import app
from selfsr.data.augment import AugmentSpec, Mix, apply_mixes, sample_mix
from selfsr.data.loader import Loader
from selfsr.data.spec import FolderSpec
from selfsr.images.files import read_image
from selfsr.images.resize import bicubic_lr, imresize
from selfsr.recipe import parse_recipe
from selfsr.training.assemble import assemble

CPU = torch.device("cpu")
KINDS = list(AugmentSpec(mixup=1).shares)
ALL = AugmentSpec(mixup=0.2, cutmix=0.2, resizemix=0.2, cutblur=0.2)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two samples and a partner, HR of 16 px and LR of 8 px that is not its bicubic."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 16, 16, generator=generator), torch.rand(3, 3, 8, 8, generator=generator)


def mixed(images: tuple[torch.Tensor, torch.Tensor], mix: Mix) -> tuple[torch.Tensor, torch.Tensor]:
    hr, lr = apply_mixes(*(image.clone() for image in images), [mix], count=2)
    assert len(hr) == len(lr) == 2
    assert torch.equal(hr[0], images[0][0])  # the other sample stays
    assert torch.equal(lr[0], images[1][0])
    return hr[1], lr[1]


def test_mixup_blends_both_images_by_one_share(images) -> None:
    hr, lr = mixed(images, Mix("mixup", 1, partner=2, share=0.25))
    for result, own, other in ((hr, images[0][1], images[0][2]), (lr, images[1][1], images[1][2])):
        torch.testing.assert_close(result, 0.25 * own + 0.75 * other)


@pytest.mark.parametrize("kind", ["cutmix", "resizemix"])
def test_a_box_is_that_of_the_partner_in_both_images(kind: str, images) -> None:
    hr, lr = mixed(images, Mix(kind, 1, partner=2, box=(1, 3, 4)))  # pyright: ignore[reportArgumentType]
    for result, image, factor in ((hr, images[0], 2), (lr, images[1], 1)):
        rows, columns = slice(factor, 5 * factor), slice(3 * factor, 7 * factor)
        wanted = image[1].clone()
        side = 4 * factor
        small = imresize(image[2:], size=(side, side))[0].clamp(0, 1)
        wanted[:, rows, columns] = small if kind == "resizemix" else image[2][:, rows, columns]
        assert torch.equal(result, wanted)


@pytest.mark.parametrize("outside", [False, True])
def test_cutblur_undegrades_the_input_and_keeps_the_ground_truth(outside: bool, images) -> None:
    hr, lr = mixed(images, Mix("cutblur", 1, box=(2, 0, 5), outside=outside))
    assert torch.equal(hr, images[0][1])
    clean = bicubic_lr(images[0][1:2], 2, bits=None)[0].clamp(0, 1)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:7, 0:5] = True
    assert torch.equal(lr, torch.where(inside ^ outside, clean, images[1][1]))


def test_the_shares_are_those_of_the_recipe() -> None:
    mixes = [sample_mix(ALL, 0, 12, np.random.default_rng((1, i))) for i in range(4000)]
    kinds = [mix.kind if mix else None for mix in mixes]
    for kind in (*KINDS, None):
        assert kinds.count(kind) / 4000 == pytest.approx(0.2, abs=0.025)  # four standard deviations
    for mix in filter(None, mixes):
        row, column, side = mix.box
        assert 0 <= row <= 12 - side
        assert 0 <= column <= 12 - side
        assert (side == 0) == (mix.kind == "mixup")
    assert {mix.outside for mix in mixes if mix and mix.kind == "cutblur"} == {False, True}


def take(photos: Path, *, degrade: str | None, steps: int, **options: Any) -> list[torch.Tensor]:
    """Return input and ground truth of each step, flattened."""
    spec = FolderSpec(kind="folder", hr=photos / "train", degrade=degrade)  # pyright: ignore[reportArgumentType]
    options = {"batch": 8, "seed": 3, "workers": 0, "augment": ALL, **options}
    accumulate = options.pop("accumulate", 1)
    loader = Loader(spec.build(scale=2, crop_px=32), **options)
    batches = [loader.prepare(raw, CPU, accumulate=accumulate) for raw in itertools.islice(loader, steps)]
    loader.close()
    return [torch.cat([torch.cat([part.hr.flatten(1), part.lr.flatten(1)], 1) for part in parts]) for parts in batches]


@pytest.mark.parametrize("degrade", [None, "real_esrgan_ssl"])
def test_mixed_samples_depend_on_seed_step_and_slot_only(degrade: str | None, photos: Path) -> None:
    expected = take(photos, degrade=degrade, steps=3)
    plain = take(photos, degrade=degrade, steps=3, augment=None)
    same = [torch.equal(a, b) for a, b in zip(torch.cat(expected), torch.cat(plain), strict=True)]
    assert 0 < sum(same) < len(same)  # unmixed samples are those without augmentation
    for options in ({"accumulate": 4}, {"workers": 2}):
        assert all(map(torch.equal, take(photos, degrade=degrade, steps=3, **options), expected))
    assert torch.equal(take(photos, degrade=degrade, steps=1, start_step=2)[0], expected[2])
    halves = [take(photos, degrade=degrade, steps=3, rank=rank, world=2) for rank in (0, 1)]
    assert all(torch.equal(torch.cat(pair), whole) for *pair, whole in zip(*halves, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_move_every_weight_and_a_resumed_run_is_the_same(kind: str, tiny: dict, tmp_path: Path) -> None:
    document = {**tiny, "steps": 4, "evaluate": None, "checkpoints": {"every_steps": 1, "keep_last": 4}}
    document["method"] = {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}}
    document["data"] = {**tiny["data"], "degrade": "bsrgan_ssl", "augment": {kind: 0.7}}
    initial = assemble(parse_recipe(document, "test"), tmp_path / "initial", device="cpu", resume=False)
    initial.loader.close()
    folder = assert_resumes(document, tmp_path)
    moved = read_checkpoint(folder, 1)["nets"]["g"]
    assert [name for name, value in initial.generator.named_parameters() if torch.equal(moved[name], value)] == []


def test_augmentations_that_cannot_be_are_one_sentence(tiny: dict, tmp_path: Path) -> None:
    data = tiny["data"]
    for augment, message in (
        ({}, "must have a sum above 0 and up to 1, got 0"),
        ({"mixup": 0.6, "cutmix": 0.6}, "must have a sum above 0 and up to 1, got 1.2"),
        ({"cutblur": 0.5}, "data.augment.cutblur must be 0 without data.degrade"),
        ({"mixup": 1.5}, "data.augment.mixup"),
    ):
        tiny["data"] = {**data, "augment": augment}
        assert message in recipe_error(tiny)
    tiny["data"] = {**data, "masks": str(tmp_path), "augment": {"cutmix": 0.5}}
    assert "data.augment.cutmix must be 0 with data.masks" in recipe_error(tiny)


def test_the_sheet_shows_the_samples_of_the_run(photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["data", "sheet", "small_edsr_x2", "-o", str(sheet), "--samples", "5"]
    settings = [f"data.hr={photos / 'train'}", "evaluate=null", "crop_px=32", "batch=4", "seed=3"]
    settings += ["data.degrade=bsrgan_ssl", "data.augment={cutmix: 0.9}"]
    for setting in settings:
        arguments += ["--set", setting]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.output == f"5 samples from step 1 on, input and ground truth: {sheet}\n"
    pixels = read_image(sheet).pixels
    assert pixels.shape == (2 * 308 + 8, 6 * 264 + 8, 3)
    spec = FolderSpec(kind="folder", hr=photos / "train", degrade="bsrgan_ssl")  # pyright: ignore[reportArgumentType]
    loader = Loader(spec.build(scale=2, crop_px=32), batch=4, seed=3, workers=0, augment=AugmentSpec(cutmix=0.9))
    (batch,) = loader.prepare(next(loader), CPU)
    shown = torch.from_numpy(pixels[8 : 8 + 256 : 8, 272 : 272 + 256 : 8].copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(shown.float(), batch.hr[0], atol=0.51 / 255, rtol=0)
    assert str(CliRunner().invoke(app, arguments).exception).endswith(f"got {sheet}, which exists; add --overwrite.")
