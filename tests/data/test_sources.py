"""Several sources with shares: each has its images, inputs and epochs, whatever the split of a batch."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from factories import recipe_error
from run_folders import assert_resumes, read_checkpoint, train
from selfsr.data.loader import Loader
from selfsr.data.sources import BLOCK, SampleOrder, count_quotas
from selfsr.data.sources_spec import DataSpec, SourcesSpec
from selfsr.data.spec import FolderSpec
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.models.training_facts import read_training_facts
from selfsr.recipe import parse_recipe
from selfsr.training.assemble import assemble
from selfsr.training.dryrun import dry_run

CPU = torch.device("cpu")


def put(folder: Path, name: str, color: tuple[int, int, int], side: int) -> Path:
    folder.mkdir(exist_ok=True)
    write_image(folder / name, DecodedImage(np.full((side, side, 3), color, np.uint8)))
    return folder


@pytest.fixture
def colors(tmp_path: Path) -> dict[str, Any]:
    """Return the data of a recipe: red images with bicubic LR, and green ones whose LR is blue."""
    for i in range(3):
        red = put(tmp_path / "red", f"r{i}.png", (250, 0, i), 32)
    for i in range(2):
        green = put(tmp_path / "green", f"g{i}.png", (0, 250, i), 32)
        blue = put(tmp_path / "blue", f"g{i}.png", (0, 0, 250), 16)
    return {
        "kind": "sources",
        "sources": {
            "plain": {"share": 3, "data": {"kind": "folder", "hr": str(red)}},
            "pairs": {"share": 1, "data": {"kind": "pairs", "hr": str(green), "lr": str(blue)}},
        },
    }


def parse(data: dict[str, Any]) -> SourcesSpec:
    return TypeAdapter(DataSpec).validate_python(data)


def take(data: dict[str, Any], steps: int, *, accumulate: int = 1, **options: Any) -> tuple[Tensor, Tensor]:
    """Return HR and LR of some steps, one sample after another."""
    options = {"batch": 8, "seed": 3, "workers": 0, **options}
    loader = Loader(parse(data).build_each({2: 16}), **options)
    parts = [
        part for raw in itertools.islice(loader, steps) for part in loader.prepare(raw, CPU, accumulate=accumulate)
    ]
    loader.close()
    return torch.cat([part.hr for part in parts]), torch.cat([part.lr for part in parts])


def test_quotas_have_the_shares_and_no_source_is_left_out() -> None:
    assert count_quotas([0.7, 0.3]).tolist() == [700, 300]
    assert count_quotas([1, 1, 1]).tolist() == [334, 333, 333]
    assert count_quotas([1e6, 1, 1]).tolist() == [998, 1, 1]
    assert count_quotas([5]).tolist() == [BLOCK]


def test_each_source_has_its_share_and_complete_epochs() -> None:
    order = SampleOrder([7, 5], [0.9, 0.1], seed=1)
    located = [order.locate(number) for number in range(2 * BLOCK)]
    assert Counter(source for source, _ in located[:BLOCK]) == {0: 900, 1: 100}
    for source, count in ((0, 7), (1, 5)):
        images = [image for each, image in located if each == source]
        epochs = [images[start : start + count] for start in range(0, len(images) - count + 1, count)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 10
    assert [SampleOrder([7, 5], [0.9, 0.1], seed=1).locate(n) for n in (1999, 3, 1500)] == [
        located[n] for n in (1999, 3, 1500)
    ]
    drawn = Counter(order.draw(np.random.default_rng((2, i)))[0] for i in range(4000))
    assert drawn[1] / 4000 == pytest.approx(0.1, abs=0.02)


def test_every_sample_has_the_input_of_its_own_source(colors: dict) -> None:
    hr, lr = take(colors, 125)  # 1,000 samples
    is_red = hr[:, 0, 0, 0] > 0.9
    assert is_red.sum() == 750
    assert torch.equal(lr[:, 0, 3, 3] > 0.9, is_red)
    assert torch.equal(lr[:, 2, 3, 3] > 0.9, ~is_red)


def test_samples_do_not_depend_on_the_split_of_a_batch(colors: dict) -> None:
    hr, lr = take(colors, 6)
    for options in ({"accumulate": 4}, {"workers": 2}):
        assert all(map(torch.equal, take(colors, 6, **options), (hr, lr)))
    assert torch.equal(take(colors, 2, start_step=4)[0], hr[32:])
    halves = torch.stack([take(colors, 6, rank=rank, world=2)[1].view(6, 4, 3, 8, 8) for rank in (0, 1)], dim=1)
    assert torch.equal(halves.flatten(0, 2), lr)


def test_one_source_with_a_share_is_the_same_as_its_folder_alone(colors: dict) -> None:
    colors["sources"]["pairs"]["share"] = 0
    spec = FolderSpec(**colors["sources"]["plain"]["data"])
    loader = Loader(spec.build(scale=2, crop_px=16), batch=8, seed=3, workers=0)
    (batch,) = loader.prepare(next(loader), CPU)
    hr, lr = take(colors, 1)
    assert torch.equal(hr, batch.hr)
    assert torch.equal(lr, batch.lr)


def test_a_run_with_sources_resumes_and_moves_every_weight(
    tiny: dict, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {**tiny, "steps": 4, "evaluate": None, "checkpoints": {"every_steps": 1, "keep_last": 4}}
    document["data"] = {
        "kind": "sources",
        "sources": {
            "bicubic": {"share": 0.5, "data": {"kind": "folder", "hr": str(photos / "train")}},
            "blind": {"share": 0.5, "data": {"kind": "folder", "hr": str(photos / "test"), "degrade": "bsrgan_ssl"}},
        },
        "augment": {"cutmix": 0.5, "cutblur": 0.3},
    }
    initial = assemble(parse_recipe(document, "test"), tmp_path / "initial", device="cpu", resume=False)
    initial.loader.close()
    folder = assert_resumes(document, tmp_path)
    moved = read_checkpoint(folder, 1)["nets"]["g"]
    assert [name for name, value in initial.generator.named_parameters() if torch.equal(moved[name], value)] == []
    files = json.loads((folder / "data.json").read_text())
    assert {key: entry["files"] for key, entry in files.items()} == {"sources.bicubic.hr": 5, "sources.blind.hr": 2}
    facts = read_training_facts(folder / "weights" / "last.safetensors")
    assert (facts.dataset, facts.dataset_size, facts.degrades) == ("train, test", 7, True)
    capsys.readouterr()
    dry_run(parse_recipe(document, "test"), device="cpu")
    assert "Data: 7 files, all usable." in capsys.readouterr().err


def test_sources_that_cannot_be_are_one_sentence(colors: dict, tiny: dict, tmp_path: Path) -> None:
    def refuse(**changes: Any) -> str:
        data = {**colors, "sources": {name: dict(source) for name, source in colors["sources"].items()}}
        for name, change in changes.items():
            if name in data["sources"]:
                data["sources"][name] = {**data["sources"][name], **change}
            else:
                data[name] = change
        return recipe_error({**tiny, "crop_px": 16, "data": data})

    assert "the shares of sources must have a sum above 0, got {'pairs': 0.0, 'plain': 0.0}; give one" in refuse(
        plain={"share": 0}, pairs={"share": 0}
    )
    assert "the shares of sources must have a sum above 0, got {}" in refuse(sources={})
    assert "data.sources.plain.share" in refuse(plain={"share": -1})
    inner = colors["sources"]["plain"]["data"]
    assert "sources.plain.data.channels must be that of all, 3, got 1; leave it out" in refuse(
        plain={"data": {**inner, "channels": 1}}
    )
    assert "sources.plain.data.augment must be null" in refuse(plain={"data": {**inner, "augment": {"mixup": 0.5}}})
    assert "sources.pairs.data.masks must be a folder" in refuse(plain={"data": {**inner, "masks": str(tmp_path)}})
    assert "data.sources.plain.data.kind: expected one of folder, pairs, got 'sources'" in refuse(
        plain={"data": {"kind": "sources"}}
    )


def test_a_source_of_another_scale_is_one_sentence_before_the_run(colors: dict, tiny: dict, tmp_path: Path) -> None:
    document = {**tiny, "scale": 4, "crop_px": 16, "evaluate": None, "data": colors}
    with pytest.raises(InputError) as error:
        train(document, tmp_path / "run")
    message = str(error.value)
    assert message.startswith(f"data.sources.pairs: {tmp_path / 'blue' / 'g0.png'}: ")
    assert "8 x 8" in message
    assert "16 x 16" in message
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_channels_are_given_to_all_sources(colors: dict) -> None:
    spec = parse({**colors, "channels": 1})
    assert {part.channels for part in spec.parts.values()} == {1}
    assert parse(spec.model_dump(mode="json")) == spec
