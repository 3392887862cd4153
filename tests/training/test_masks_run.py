"""Runs with masks from files, and recipes that would not use them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from selfsr import edge_mask
from selfsr.errors import InputError
from selfsr.images.files import image_to_tensor, read_image
from selfsr.recipe import dump_recipe, parse_recipe, read_yaml
from selfsr.training.dryrun import dry_run
from selfsr.training.loop import fit


def write_masks(photos: Path, folder: Path, share: float) -> Path:
    """Save the edge mask of every image, or with share 0 an empty mask."""
    folder.mkdir()
    for path in (photos / "train").iterdir():
        mask = edge_mask(image_to_tensor(read_image(path)))[0, 0].numpy() & (share > 0)
        savemat(folder / f"{path.stem}.mat", {"mat": mask.astype(np.uint8)}, do_compression=True)
    return folder


def losses(document: dict[str, Any], folder: Path) -> list[float]:
    assert fit(parse_recipe(document, "tiny"), folder, device="cpu")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"]["g"]["similarity"] for line in lines]


def test_masks_from_files_select_the_pixels(tiny, photos, tmp_path):
    tiny |= {"steps": 2, "evaluate": None}
    edges = write_masks(photos, tmp_path / "edges", 1)
    nothing = write_masks(photos, tmp_path / "nothing", 0)
    tiny["data"]["masks"] = str(edges)
    whole = losses(tiny, tmp_path / "a")
    assert all(loss > 0 for loss in whole)
    assert losses(tiny | {"accumulate": 2}, tmp_path / "b") == pytest.approx(whole, rel=1e-4)
    tiny["data"]["masks"] = str(nothing)
    assert losses(tiny, tmp_path / "c") == [0, 0]


def test_a_dry_run_checks_every_mask(tiny, photos, tmp_path):
    masks = write_masks(photos, tmp_path / "edges", 1)
    tiny["data"]["masks"] = str(masks)
    (masks / "p3.mat").unlink()
    savemat(masks / "p1.mat", {"mat": np.full((76, 80), 7, np.uint8)})
    with pytest.raises(InputError) as caught:
        dry_run(parse_recipe(tiny, "tiny"), device="cpu")
    assert str(caught.value) == (
        "dry run: all 10 training files must be usable, got 2 that are not; list them with: selfsr data check "
        f"{photos}/train --crop 32 --masks {masks}; the first is {masks}/p1.mat: "
        "expected a mask of 0 and 1, got values from 7 to 7; save it again."
    )


def test_masks_that_no_term_uses_are_refused(tiny, tmp_path):
    tiny["data"]["masks"] = str(tmp_path)
    recipe = parse_recipe(tiny, "tiny")
    # The recipe with every default is the same recipe.
    assert parse_recipe(read_yaml(dump_recipe(recipe), "dumped"), "dumped") == recipe
    term = tiny["method"]["terms"].pop("similarity")
    with pytest.raises(InputError, match=r"data\.masks must be null where no term .* is a loss at edges, got /"):
        parse_recipe(tiny, "tiny")
    for option, value in (("threshold", 30.0), ("two_sided", True)):
        tiny["method"]["terms"]["similarity"] = term | {option: value}
        with pytest.raises(InputError, match=rf"method\.terms\.similarity\.{option} does nothing with data\.masks"):
            parse_recipe(tiny, "tiny")
