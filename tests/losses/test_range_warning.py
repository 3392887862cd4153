"""The warning about images in another range: what it sees, what it leaves alone, and that it looks once."""

import copy
import pickle
import re
import warnings

import pytest
import torch
from torch import nn

from selfsr import RangeWarning, SelfPacedLoss, SelfSimilarityLoss
from selfsr.errors import RangeCheck
from selfsr.losses import PerceptualLoss
from selfsr.recipe import shipped_recipes
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.objective import Objective
from selfsr.terms.pixel import L1Term
from selfsr.terms.similarity import SelfSimilarityTerm


def ramp(seed=0):
    """Return an image of [0, 1] with dark, bright and flat regions."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 5, 5, generator=generator)
    return nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")


def vgg_weights():
    sizes = {"features.0": (64, 3, 3, 3), "features.2": (64, 64, 3, 3)}
    weights = {f"{name}.weight": torch.randn(size) / 20 for name, size in sizes.items()}
    return weights | {f"{name}.bias": torch.zeros(64) for name in sizes}


MODULES = {
    "SelfPacedLoss": lambda: SelfPacedLoss(),
    "SelfPacedLoss of a callable": lambda: SelfPacedLoss(lambda a, b: (a - b).abs() ** 1.5),
    "SelfSimilarityLoss": lambda: SelfSimilarityLoss(search_px=5, window_px=3),
    "PerceptualLoss": lambda: PerceptualLoss({"conv1_2": 1.0}, weights=vgg_weights()),
}


def call(module, sr, hr):
    loss = getattr(module, "_orig_mod", module)
    return module(sr, hr, torch.tensor(1.0)) if isinstance(loss, SelfPacedLoss) else module(sr, hr)


WRONG = {
    "both 255": (lambda x: x * 255, lambda x: x * 255, "divide them by 255"),
    "hr 255": (lambda x: x, lambda x: x * 255, "divide them by 255"),
    "sr 255": (lambda x: x * 255, lambda x: x, "divide sr by 255"),
    "both signed": (lambda x: 2 * x - 1, lambda x: 2 * x - 1, r"map them from \[-1, 1\] to \[0, 1\] by"),
    "hr signed": (lambda x: x, lambda x: 2 * x - 1, r"map them from \[-1, 1\] to \[0, 1\] by \(x \+ 1\) / 2"),
    "sr signed": (lambda x: 2 * x - 1, lambda x: x, r"map sr from \[-1, 1\] to \[0, 1\] by"),
    "rough sr signed": (lambda x: 2 * x - 1 + 0.1 * torch.randn_like(x), lambda x: x, r"map sr from \[-1, 1\]"),
    "hr overshoots": (lambda x: x, lambda x: 1.2 * x - 0.1, "clamp hr to the range"),
    "hr normalized": (lambda x: x, lambda x: (x - 0.45) / 0.22, "got sr from .* and hr from -"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", MODULES)
def test_wrong_range_warns_once_with_what_was_seen(name, wrong):
    torch.manual_seed(0)
    change_sr, change_hr, advice = WRONG[wrong]
    module = MODULES[name]()
    hr = ramp().clamp(0.0, 0.97)
    sr, hr = change_sr(hr), change_hr(hr)
    with pytest.warns(RangeWarning) as shown:
        call(module, sr, hr)
    (warning,) = shown
    message = str(warning.message)
    assert message.startswith(f"{name.split()[0]}: images in [0, 1] were expected, got sr from ")
    assert f"from {sr.min():.3g} to {sr.max():.3g} and hr from {hr.min():.3g} to {hr.max():.3g}; " in message
    assert re.search(advice, message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(module, sr, hr)  # never again


RIGHT = {
    "equal": lambda x: x,
    "zero": lambda x: torch.zeros_like(x),
    "negative zero-mean": lambda x: 0.3 * torch.randn_like(x),
    "mean color": lambda x: torch.full_like(x, 0.45),
    "far overshoot": lambda x: 0.5 + 0.9 * torch.randn_like(x),
    "weak copy without a mean": lambda x: 0.4 * (x - x.mean()),
    "diverged": lambda x: torch.full_like(x, float("nan")),
}


@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize("hr_like", ["full", "gray", "black", "rounded"])
@pytest.mark.parametrize("name", MODULES)
def test_untrained_outputs_and_plain_images_do_not_warn(name, hr_like, right):
    torch.manual_seed(0)
    hr = ramp()
    hr = {"full": hr, "gray": 0.4 + 0.2 * hr, "black": 0 * hr, "rounded": hr.bfloat16().float() * 1.004}[hr_like]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(MODULES[name](), RIGHT[right](hr), hr)


@pytest.mark.parametrize(
    ("data_range", "factor", "message"),
    [
        (255, 255, None),
        (1, 1, None),
        (1 / 255, 1, None),  # the constants of published code
        (255, 1, r"images in \[0, 255\] were expected, .*; multiply them by 255, or set data_range to 1"),
        (1, 255, r"images in \[0, 1\] were expected, .*; divide them by 255"),
        (1 / 255, 255, r"images in \[0, 1\] were expected, .*; divide them by 255"),
        (255, 65535, r"images in \[0, 255\] were expected, .* clamp hr to the range"),
    ],
)
def test_data_range_is_the_expected_range(data_range, factor, message):
    module = SelfPacedLoss(data_range=data_range)
    hr = ramp() * factor
    if message is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            module(hr, hr, 1.0)
    else:
        with pytest.warns(RangeWarning, match=message):
            module(hr, hr, 1.0)


def test_check_looks_at_the_first_call_only_and_skips_tensors_without_values():
    check = RangeCheck("loss")
    hr = ramp()
    meta, empty = hr.to("meta"), hr[:0]
    for images in (meta, empty):
        check(images, images)
        assert check.is_due
    check(hr, hr)
    assert not check.is_due
    check(255 * hr, 255 * hr)  # would warn, and warnings are errors here


@pytest.mark.parametrize("copy_module", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("name", ["SelfPacedLoss", "SelfSimilarityLoss", "PerceptualLoss"])
def test_copies_and_pickles_of_modules_give_the_same_loss(name, copy_module):
    torch.manual_seed(0)
    module = MODULES[name]()
    hr = ramp()
    assert torch.equal(call(copy_module(module), hr.flip(3), hr), call(module, hr.flip(3), hr))
    assert torch.equal(call(copy_module(module), hr.flip(3), hr), call(module, hr.flip(3), hr))


@pytest.mark.compile
@pytest.mark.parametrize("name", ["SelfPacedLoss", "SelfSimilarityLoss", "PerceptualLoss"])
def test_compiled_module_is_one_graph_and_does_not_look(name):
    torch.manual_seed(0)
    module = MODULES[name]()
    hr = 255 * ramp()
    graphs = []

    def count(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    torch.compiler.reset()
    compiled = torch.compile(module, backend=count, fullgraph=True)
    compiled_loss = call(compiled, hr.flip(3), hr)
    call(compiled, hr.flip(3), hr)
    assert len(graphs) == 1
    assert not any("amin" in target or target == "item" for target in graphs[0])
    with pytest.warns(RangeWarning):  # the first call outside of the graph
        eager_loss = call(module, hr.flip(3), hr)
    torch.testing.assert_close(compiled_loss, eager_loss)
    call(compiled, hr.flip(3), hr)
    assert len(graphs) == 1, "the look changed something that the graph depends on"
    torch.compiler.reset()


@pytest.mark.compile
def test_exported_module_does_not_look():
    hr = 255 * ramp()
    program = torch.export.export(SelfSimilarityLoss(search_px=5, window_px=3), (hr.flip(3), hr))
    assert not any("amin" in str(node.target) for node in program.graph.nodes)


# ---- the trainer


def take_step(objective, sr, hr):
    batch = Batch(lr=hr[..., ::2, ::2], hr=hr)
    return objective.weighted_losses(Outputs(sr), batch, Clock(step=1, steps_per_epoch=2))


def make_objective():
    specs = {"pixel": L1Term(pace={"alpha": 1.0}), "similarity": SelfSimilarityTerm(search_px=5, window_px=3)}
    return Objective(specs, torch.device("cpu"))


def test_trainer_warns_once_for_all_terms():
    hr = ramp()
    objective = make_objective()
    with pytest.warns(RangeWarning, match=r"^train: images in \[0, 1\] were expected, .*map sr from") as shown:
        take_step(objective, (2 * hr - 1).requires_grad_(), hr)
    assert len(shown) == 1
    take_step(objective, (2 * hr - 1).requires_grad_(), hr)


# The images of latents are those of the autoencoder, which is trained.
PIXEL_RECIPES = [name for name, path in shipped_recipes().items() if "autoencoder:" not in path.read_text()]


@pytest.mark.parametrize("name", [name for name in PIXEL_RECIPES if name.startswith("small")])
def test_untrained_networks_of_shipped_recipes_do_not_warn(name):
    from selfsr.recipe import load_recipe

    recipe = load_recipe(shipped_recipes()[name])
    scale = recipe.scale if isinstance(recipe.scale, int) else recipe.scale[0]
    for seed in range(2):
        torch.manual_seed(seed)
        net = recipe.network.build(scale, recipe.data.channels)
        lr = ramp(seed)[:, : recipe.data.channels]
        hr = nn.functional.interpolate(lr, scale_factor=scale, mode="bilinear")
        with torch.no_grad():
            sr = net(lr)
        sr = sr if isinstance(sr, torch.Tensor) else sr[0]
        RangeCheck(name)(sr, hr)  # warnings are errors here
