"""Crops that are too small for a term: the recipe refuses the same sizes as the loss."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torchvision
from pydantic import TypeAdapter

from selfsr.errors import InputError
from selfsr.nets.ranker import Ranker
from selfsr.recipe import parse_recipe
from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms import Term

KINDS = [get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(Term)[0])]
# Options, and the side that they need by the definitions of docs/losses.md and docs/selfsim.md; all others take any.
NEEDED = [
    ("ssim", {}, 11),
    ("ms_ssim", {}, 176),
    ("ms_ssim", {"scale_weights": [0.5, 0.5]}, 22),
    ("best_buddy", {}, 3),
    ("best_buddy", {"patch_px": 7}, 7),
    ("artifact", {}, 4),
    ("artifact", {"window_px": 11}, 6),
    ("self_similarity", {}, 13),
    ("self_similarity", {"search_px": 9, "window_px": 5}, 5),
    ("self_similarity", {"search_px": 1, "window_px": 1}, 2),
    ("total_variation", {}, 2),
    ("edge_l1", {}, 2),
    ("checkerboard", {}, 2),
    ("perceptual", {"layers": {"conv3_4": 1.0}}, 4),
    ("perceptual", {"layers": {"conv1_2": 1.0, "conv5_1": 0.5}}, 16),
    ("perceptual", {"network": "alexnet"}, 31),
    ("lpips", {"network": "squeeze"}, 17),
    ("lpips", {"network": "alex"}, 31),
    ("rank", {}, 32),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Return the option that names a file of weights in the published layout, by the network or kind that needs one."""
    folder, models = tmp_path_factory.mktemp("weights"), torchvision.models
    with torch.device("meta"):
        networks = {
            "vgg19": models.vgg.make_layers(models.vgg.cfgs["E"]),
            "vgg16": models.vgg.make_layers(models.vgg.cfgs["D"]),
            "alexnet": models.alexnet(num_classes=1).features,
            "squeezenet": models.squeezenet1_1(num_classes=1).features,
        }
    for name, network in networks.items():
        tensors = {f"features.{key}": torch.zeros(tensor.shape) for key, tensor in network.state_dict().items()}
        torch.save(tensors, folder / f"{name}.pth")
    torch.save(Ranker(features=4).state_dict(), folder / "ranker.pth")
    return {name: {"weights": folder / f"{name}.pth"} for name in (*networks, "ranker")}


def describe_term(kind: str, options: dict, weights: dict[str, dict[str, Path]]) -> dict[str, Any]:
    """Return a term of a recipe with its options and its file of weights."""
    networks = {"perceptual": "vgg19", "lpips": "vgg", "dists": "vgg16", "rank": "ranker"}
    network = options.get("network", networks.get(kind))
    network = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet"}.get(network, network)
    return {"kind": kind, **options, **weights.get(network, {})}


def loss(term: Any, side: int) -> torch.Tensor:
    """Return the term's loss of a batch of crops of that side."""
    hr, sr = torch.rand(2, 2, 3, side, side, generator=torch.Generator().manual_seed(side))
    lr = torch.nn.functional.interpolate(hr, size=max(1, side // 2))
    value = term.build(torch.device("cpu"))(Outputs(sr, branch=sr, ema_sr=hr), Batch(hr=hr, lr=lr), Clock(1, 1))
    return value.total / value.count.clamp(min=1) if isinstance(value, MaskedSum) else value


@pytest.mark.parametrize(("kind", "options", "side"), NEEDED)
def test_minimum_px_is_the_smallest_crop_of_the_loss(weights: dict, kind: str, options: dict, side: int) -> None:
    term = TypeAdapter(Term).validate_python(describe_term(kind, options, weights))
    assert term.minimum_px == side
    assert torch.isfinite(loss(term, side))
    with pytest.raises((InputError, RuntimeError)):
        loss(term, side - 1)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {kind for kind, _, _ in NEEDED}))
def test_other_terms_accept_any_crop(weights: dict, kind: str) -> None:
    term = TypeAdapter(Term).validate_python(describe_term(kind, {}, weights))
    assert term.minimum_px == 1
    assert torch.isfinite(loss(term, 1))


@pytest.mark.parametrize(
    ("kind", "options", "crop_px", "sentence"),
    [
        ("ssim", {}, 10, "at least 11 for method.terms.tested (ssim with these options), got 10; use larger crops"),
        ("ms_ssim", {}, 96, "at least 176 for method.terms.tested (ms_ssim with these options), got 96;"),
        ("best_buddy", {"patch_px": 13}, 12, "at least 13 for method.terms.tested (best_buddy with these options),"),
        ("artifact", {"window_px": 21}, 10, "at least 11 for method.terms.tested (artifact with these options), got"),
        ("perceptual", {}, 14, "at least 16 for method.terms.tested (perceptual with these options), got 14;"),
        ("rank", {}, 30, "at least 32 for method.terms.tested (rank with these options), got 30;"),
        ("self_similarity", {}, 12, "at least 13 for method.terms.tested (self_similarity with these options), got"),
    ],
)
def test_a_crop_too_small_for_a_term_is_refused(
    tiny: dict, weights: dict, kind: str, options: dict, crop_px: int, sentence: str
) -> None:
    term = describe_term(kind, options, weights)
    document = {**tiny, "crop_px": crop_px, "method": {"kind": "regression", "terms": {"tested": term}}}
    with pytest.raises(InputError) as caught:
        parse_recipe(document, "my.yaml")
    assert str(caught.value).startswith("my.yaml: recipe: crop_px must be " + sentence)
    assert parse_recipe({**document, "crop_px": 176}, "my.yaml").method.terms["tested"].kind == kind


def test_with_several_scales_the_smallest_crop_counts(tiny: dict) -> None:
    network = {"kind": "mdsr", "features": 8, "blocks": 1, "factors": [2, 4]}
    method = {"kind": "regression", "terms": {"tested": {"kind": "ssim"}}}
    document = {**tiny, "scale": [2, 4], "network": network, "method": method, "crop_px": [10, 20]}
    with pytest.raises(InputError, match=r"at least 11 for method.terms.tested \(ssim with these options\), got 10;"):
        parse_recipe(document, "my.yaml")
    parse_recipe({**document, "crop_px": [12, 24]}, "my.yaml")
