"""The losses in the registries of other trainers: small stand-ins with the interface of each, written for this test."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from selfsr import InputError, SelfPacedLoss, SelfSimilarityLoss, edge_mask, self_similarity_loss
from selfsr.terms.pixel import L1Term
from selfsr.terms.similarity import SelfSimilarityTerm

SIZES = {"search_px": 9, "window_px": 5}

# The part of the trainers' registries that losses see: two ways to register, and a search by name.
REGISTRY = """
class Registry:
    def __init__(self):
        self.classes = {}

    def register(self, obj=None, suffix=None):
        def add(cls):
            name = cls.__name__.LOWER
            assert name not in self.classes
            self.classes[name] = cls
            return cls
        return add if obj is None else add(obj)

    def get(self, name):
        return self.classes[name.LOWER]

    def __contains__(self, name):
        return name.LOWER in self.classes


LOSS_REGISTRY = Registry()
MODEL_REGISTRY = Registry()
"""

# The slots of BasicSR's model for one network, and their order of calls.
SR_MODEL = """
import torch
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY


@MODEL_REGISTRY.register()
class SRModel:
    def __init__(self, opt, net, lq, gt):
        self.opt, self.net_g, self.lq, self.gt, self.device = opt, net, lq, gt, torch.device("cpu")
        self.init_training_settings()

    def init_training_settings(self):
        options = dict(self.opt["train"]["pixel_opt"])
        self.cri_pix = LOSS_REGISTRY.get(options.pop("type"))(**options).to(self.device)

    def optimize_parameters(self, current_iter):
        self.output = self.net_g(self.lq)
        l_pix = self.cri_pix(self.output, self.gt)
        l_pix.backward()
        self.log_dict = {"l_pix": l_pix.item()}
"""

# Package, whether its registry ignores case, and whether its losses apply their weight themselves.
TRAINERS = {
    "basicsr": ("basicsr", False, True),
    "redux": ("traiNNer", True, False),
    "neosr": ("neosr", False, True),
}


def write_stand_in(folder: Path, package: str, lower: bool) -> None:
    for name in ("", "utils", "models"):
        (folder / package / name).mkdir(parents=True, exist_ok=True)
        (folder / package / name / "__init__.py").write_text("")
    text = REGISTRY.replace(".LOWER", ".lower()" if lower else "")
    (folder / package / "utils" / "registry.py").write_text(text)
    (folder / package / "models" / "sr_model.py").write_text(SR_MODEL)


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the stand-ins importable, and forget them and the integrations afterwards."""
    for package, lower, _ in TRAINERS.values():
        write_stand_in(tmp_path, package, lower)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    packages = {package for package, *_ in TRAINERS.values()}
    for name in list(sys.modules):
        if name.split(".")[0] in packages or name.startswith("selfsr.integrations."):
            del sys.modules[name]


def registry_of(package: str) -> ModuleType:
    return importlib.import_module(f"{package}.utils.registry")


def make_images() -> tuple[torch.Tensor, torch.Tensor]:
    sr, hr = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return sr.requires_grad_(), hr


def gradient_of(loss: torch.Tensor, sr: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, sr)[0]


@pytest.mark.parametrize("module", TRAINERS)
def test_the_registered_loss_has_the_value_and_gradient_of_our_term(stand_ins: Path, module: str) -> None:
    package, _, applies_weight = TRAINERS[module]
    importlib.import_module(f"selfsr.integrations.{module}")
    loss = registry_of(package).LOSS_REGISTRY.get("SelfSimilarityLoss")(loss_weight=20.0, **SIZES)
    loss = loss.to("cpu", memory_format=torch.channels_last, non_blocking=True)
    sr, hr = make_images()
    value = loss(sr, hr) * (1.0 if applies_weight else loss.loss_weight)  # traiNNer-redux multiplies
    mask = edge_mask(hr, stride=3)
    wanted = 20 * self_similarity_loss(sr, hr, mask, **SIZES)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
    torch.testing.assert_close(gradient_of(value, sr), gradient_of(wanted, sr))
    # As a recipe's term computes it: the sum over masked pixels, over their number.
    from selfsr.step import Batch, Clock, Outputs

    term = SelfSimilarityTerm(weight=20.0, **SIZES)(Outputs(sr), Batch(hr=hr, lr=hr[..., ::2, ::2]), Clock(1, 1))
    assert value.item() == pytest.approx(20 * (term.total / term.count).item(), rel=1e-6)


@pytest.mark.parametrize("module", TRAINERS)
def test_the_self_paced_loss_counts_its_calls(stand_ins: Path, module: str) -> None:
    package, _, applies_weight = TRAINERS[module]
    importlib.import_module(f"selfsr.integrations.{module}")
    loss = registry_of(package).LOSS_REGISTRY.get("SelfPacedLoss")(loss_weight=0.5, steps_per_epoch=4, loss="l2")
    sr, hr = make_images()
    with torch.no_grad():
        loss(sr.detach(), hr)  # a validation is no step
    factor = 0.5 if applies_weight else 1.0
    for step in (1, 2, 3):
        value = loss(sr, hr)
        wanted = factor * SelfPacedLoss("l2")(sr, hr, step / 4)
        assert torch.equal(value, wanted)
        assert torch.equal(gradient_of(value, sr), gradient_of(wanted, sr))
    resumed = type(loss)(loss_weight=0.5, steps_per_epoch=4, loss="l2", start_step=3)
    assert torch.equal(resumed(sr, hr), loss(sr, hr))


def test_class_recipe_and_registered_loss_share_names_and_defaults(stand_ins: Path) -> None:
    importlib.import_module("selfsr.integrations.basicsr")
    registered = registry_of("basicsr").LOSS_REGISTRY.get("SelfSimilarityLoss")()
    term, module = SelfSimilarityTerm(), SelfSimilarityLoss()
    options = module.options | module.mask_options
    shared = set(options) & set(type(term).model_fields)
    assert shared >= {"search_px", "window_px", "sigma", "l1_weight", "kl_weight", "threshold", "stride", "two_sided"}
    assert {name: options[name] for name in shared} == {name: getattr(term, name) for name in shared}
    assert registered.loss_weight == term.weight
    assert (registered.loss.options, registered.loss.mask_options) == (module.options, module.mask_options)
    pace = L1Term(pace={}).pace
    assert pace is not None
    paced = SelfPacedLoss()
    assert {name: getattr(paced, name) for name in pace.options()} == pace.options()


def test_a_basicsr_model_adds_the_loss_and_gives_the_iteration(stand_ins: Path) -> None:
    importlib.import_module("selfsr.integrations.basicsr")
    importlib.import_module("selfsr.integrations.basicsr_models")
    model_class = registry_of("basicsr").MODEL_REGISTRY.get("SelfsrSRModel")
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 3, padding=1)
    lq, hr = torch.rand(2, 1, 3, 32, 32)
    train = {
        "pixel_opt": {"type": "SelfPacedLoss", "steps_per_epoch": 4},
        "self_similarity_opt": {"type": "SelfSimilarityLoss", "loss_weight": 20.0, **SIZES},
    }
    model = model_class({"train": train}, net, lq, hr)
    model.optimize_parameters(7)
    gradient = net.weight.grad
    net.weight.grad = None
    sr = net(lq)
    similarity = 20 * SelfSimilarityLoss(**SIZES)(sr, hr)
    total = SelfPacedLoss()(sr, hr, 7 / 4) + similarity
    total.backward()
    torch.testing.assert_close(gradient, net.weight.grad)
    assert model.log_dict == {
        "l_pix": pytest.approx(total.item()),
        "l_self_similarity": pytest.approx(similarity.item()),
    }
    with pytest.raises(InputError, match=r"expected the block train\.self_similarity_opt, got none; add it"):
        model_class({"train": {"pixel_opt": train["pixel_opt"]}}, net, lq, hr)


def test_wrong_options_are_one_sentence(stand_ins: Path) -> None:
    importlib.import_module("selfsr.integrations.neosr")
    get = registry_of("neosr").LOSS_REGISTRY.get
    with pytest.raises(InputError, match=r"^SelfSimilarityLoss: expected options of the loss, got 'serch_px'; did you"):
        get("SelfSimilarityLoss")(loss_weight=1.0, serch_px=9)
    with pytest.raises(InputError, match="got 'reduction'; "):
        get("SelfPacedLoss")(reduction="none")
    with pytest.raises(InputError, match="steps_per_epoch must be a whole number of at least 1, got 0"):
        get("SelfPacedLoss")(steps_per_epoch=0)


def test_a_missing_trainer_and_a_taken_name_are_one_sentence(
    stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_of("traiNNer").LOSS_REGISTRY
    registry.register(type("SelfSimilarityLoss", (), {}))
    with pytest.raises(InputError, match="without SelfSimilarityLoss, got a registry that has it already; remove"):
        importlib.import_module("selfsr.integrations.redux")
    monkeypatch.setitem(sys.modules, "neosr.utils.registry", None)
    with pytest.raises(
        InputError, match=r"expected neosr with neosr\.utils\.registry\.LOSS_REGISTRY, got an environment"
    ):
        importlib.import_module("selfsr.integrations.neosr")


def test_the_losses_are_found_by_a_trainer_that_scans_its_folder(stand_ins: Path) -> None:
    """As docs/integrations.md advises: a file of one line among the losses of the trainer."""
    (stand_ins / "traiNNer" / "selfsr_loss.py").write_text("import selfsr.integrations.redux\n")
    importlib.import_module("traiNNer.selfsr_loss")
    assert "selfsimilarityloss" in registry_of("traiNNer").LOSS_REGISTRY
