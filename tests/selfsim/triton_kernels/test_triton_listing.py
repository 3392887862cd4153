"""The launches that are listed, to compile kernels ahead, are those that a call makes."""

import pytest
import torch
from kernel_cases import list_pixels, pad_reflect, random_images, random_mask

from selfsr._ops.launches import Launch, drop_duplicates, list_launches
from selfsr.recipe import parse_recipe
from selfsr.selfsim.contract import Geometry
from selfsr.selfsim.operator import loss_and_gradient
from selfsr.selfsim.triton import backend, config, packing
from selfsr.selfsim.triton.packing import PackedBatch
from selfsr.training.kernels import list_step_launches

pytestmark = pytest.mark.triton


def test_listed_kernels_are_those_of_a_call_with_another_mask(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    sr, hr = (random_images((2, 2, 5, 6), device, seed).float() for seed in range(2))
    options = (Geometry(7, 3), 1.0, 1.0, True, "triton", 256.0, None)
    with list_launches() as listed:
        loss_and_gradient(sr, hr, torch.rand(2, 1, 5, 6).to(device) < 0.5, *options)
    launched: list[Launch] = []
    run = type(backend.row_kernel).run

    def noted(self, *arguments, grid, **values):
        launched.append(Launch(self, {name: value for name, value in values.items() if name != "warmup"}))
        return run(self, *arguments, grid=grid, **values)

    monkeypatch.setattr(type(backend.row_kernel), "run", noted)
    loss_and_gradient(sr, hr, random_mask((2, 2, 5, 6), device), *options)
    keys = {launch.key for launch in drop_duplicates(listed)}
    assert {launch.key for launch in launched} == keys
    # Two to pack, two for truncated windows, their gradient and the rows; the others for each of four classes.
    assert len(keys) == 6 + 3 * 4


def test_a_recipe_lists_the_kernels_of_its_losses(device: torch.device) -> None:
    similarity = {"kind": "self_similarity", "search_px": 7, "window_px": 3, "backend": "triton"}
    recipe = parse_recipe(
        {
            "name": "x", "steps": 1, "steps_per_epoch": 1, "scale": 2, "batch": 2, "crop_px": 16,
            "network": {"kind": "edsr"}, "data": {"kind": "folder", "hr": "."},
            "method": {"kind": "regression", "terms": {"pixel": {"kind": "l1"}, "similarity": similarity}},
            "optimizers": {"g": {"kind": "adam", "lr": 1e-4}}, "schedule": {"kind": "constant"},
        },
        "x",
    )  # fmt: skip
    launches = list_step_launches(recipe, device, 1)
    names = [launch.kernel.fn.__name__ for launch in launches]
    assert names.count("distance_kernel") == names.count("spread_kernel") == names.count("collect_kernel") == 4
    assert len(names) == 6 + 3 * 4


def test_more_warps_give_the_same_rows(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """The launch options of earlier versions of Triton change no value."""
    geometry = Geometry(7, 3)
    padded = pad_reflect(random_images((1, 2, 5, 6), device), geometry).float()
    q = backend.window_distances(padded, list_pixels(random_mask((1, 2, 5, 6), device)), geometry)
    results = []
    for warps in (8, 16):
        monkeypatch.setattr(backend, "config_of", lambda _, warps=warps: config.LaunchConfig(warps))
        results.append(backend.loss_and_row_gradient(q.clone(), q.flip(1), geometry, 1.0, 1.0, True))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-9)


def test_pixels_are_located_once_for_both_graphs_and_the_gradient(device: torch.device) -> None:
    sr, hr = (random_images((2, 2, 5, 6), device, seed).float() for seed in range(2))
    options = (Geometry(5, 3), 1.0, 1.0, True, "triton", 256.0, None)
    with list_launches() as launches:
        loss_and_gradient(sr, hr, random_mask((2, 2, 5, 6), device), *options)
    names = [launch.kernel.fn.__name__ for launch in launches]
    assert names.count("slot_kernel") == 1
    assert names.count("pack_kernel") == 3


def test_a_map_of_pixels_is_not_used_for_another_layout_or_other_pixels(device: torch.device) -> None:
    pixels = list_pixels(random_mask((1, 1, 5, 6), device))
    first, second = (pad_reflect(random_images((1, 1, 5, 6), device), Geometry(s, 3)) for s in (5, 7))
    a = PackedBatch(first, pixels, Geometry(5, 3))
    assert PackedBatch(first, pixels, Geometry(5, 3)).slots is a.slots
    assert PackedBatch(second, pixels, Geometry(7, 3)).slots.shape != a.slots.shape
    other = list_pixels(torch.ones(1, 1, 5, 6, dtype=torch.bool, device=device))
    assert PackedBatch(first, other, Geometry(5, 3)).count == 30
    count = len(packing._maps)
    del a, pixels, other
    assert len(packing._maps) == count - 2
