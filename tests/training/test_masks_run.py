"""Runs whose masks come from files, and recipes in which they would do nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from selfsr import edge_mask
from selfsr.errors import InputError
from selfsr.images.files import read_picture, to_tensor
from selfsr.recipe import dump_recipe, parse_recipe, read_yaml
from selfsr.training.dryrun import dry_run
from selfsr.training.loop import fit


def write_masks(photos: Path, folder: Path, share: float) -> Path:
    """Save the edges of every picture, or with share 0 none."""
    folder.mkdir()
    for path in (photos / "train").iterdir():
        mask = edge_mask(to_tensor(read_picture(path)))[0, 0].numpy() & (share > 0)
        savemat(folder / f"{path.stem}.mat", {"mat": mask.astype(np.uint8)}, do_compression=True)
    return folder


def losses(document: dict[str, Any], folder: Path) -> list[float]:
    assert fit(parse_recipe(document, "tiny"), folder, device="cpu")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"]["g"]["similarity"] for line in lines]


def test_two_steps_with_masks(tiny, photos, tmp_path):
    tiny |= {"steps": 2, "evaluate": None}
    edges = write_masks(photos, tmp_path / "edges", 1)
    nothing = write_masks(photos, tmp_path / "nothing", 0)
    tiny["data"]["masks"] = str(edges)
    whole = losses(tiny, tmp_path / "a")
    assert all(loss > 0 for loss in whole)
    assert losses(tiny | {"accumulate": 2}, tmp_path / "b") == pytest.approx(whole, rel=1e-4)
    tiny["data"]["masks"] = str(nothing)
    assert losses(tiny, tmp_path / "c") == [0, 0]


def test_a_dry_run_looks_at_every_mask(tiny, photos, tmp_path):
    masks = write_masks(photos, tmp_path / "edges", 1)
    tiny["data"]["masks"] = str(masks)
    (masks / "p3.mat").unlink()
    savemat(masks / "p1.mat", {"mat": np.full((76, 80), 7, np.uint8)})
    with pytest.raises(InputError) as caught:
        dry_run(parse_recipe(tiny, "tiny"), device="cpu")
    train = photos / "train"
    assert str(caught.value) == (
        f"dry run: 2 of 10 training files cannot be used; see them all with: selfsr data check {train} --crop 32 "
        f"--masks {masks}; the first is {masks}/p1.mat: expected a mask of 0 and 1, got values from 7 to 7; save it "
        "again."
    )


def test_masks_that_nothing_would_look_at(tiny, tmp_path):
    tiny["data"]["masks"] = str(tmp_path)
    recipe = parse_recipe(tiny, "tiny")
    # What is written down with every default spelled out is the same recipe.
    assert parse_recipe(read_yaml(dump_recipe(recipe), "dumped"), "dumped") == recipe
    term = tiny["method"]["terms"].pop("similarity")
    with pytest.raises(InputError, match=r"data\.masks must be null where no term .* is a self_similarity, got /"):
        parse_recipe(tiny, "tiny")
    for option, value in (("threshold", 30.0), ("two_sided", True)):
        tiny["method"]["terms"]["similarity"] = term | {option: value}
        with pytest.raises(InputError, match=rf"method\.terms\.similarity\.{option} does nothing with data\.masks"):
            parse_recipe(tiny, "tiny")
