"""Every term acts on the generator; masked losses do not depend on how a batch is split."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
import torchvision
from pydantic import TypeAdapter, ValidationError

from factories import TwoOutputs, make_batch
from selfsr.errors import InputError
from selfsr.methods import MethodSetup
from selfsr.methods.regression import RegressionSpec
from selfsr.nets.ranker import Ranker
from selfsr.step import Batch, Clock, MaskedSum, Outputs, Update
from selfsr.terms import Term
from selfsr.terms.loss_weights import MatchLargest
from selfsr.terms.objective import Objective
from selfsr.terms.similarity import SelfSimilarityTerm
from selfsr.training.loop import losses_to_backward

KINDS = [get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(Term)[0])]


def setup(net: torch.nn.Module) -> MethodSetup:
    return MethodSetup(net, torch.device("cpu"), channels=3, crop_px=32, ema_forward=None)


def objective(terms: dict) -> Objective:
    return Objective(TypeAdapter(dict[str, Term]).validate_python(terms), torch.device("cpu"))


def gradient(terms: dict, batch: Batch) -> torch.Tensor:
    net = TwoOutputs()
    sr, branch = net(batch.lr)
    outputs = Outputs(sr, branch, ema_sr=0.9 * sr.detach())
    (update,) = objective(terms).updates(outputs, batch, Clock(5, 1))
    sum(losses_to_backward(update, {}, 1, 1).values()).backward()
    return net.conv.weight.grad


@pytest.fixture(scope="session")
def feature_networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with random weights of SqueezeNet and VGG16 in the published layout."""
    folder, models = tmp_path_factory.mktemp("networks"), torchvision.models
    torch.manual_seed(6)
    vgg16 = models.vgg.make_layers(models.vgg.cfgs["D"]).state_dict()
    torch.save({f"features.{name}": tensor for name, tensor in vgg16.items()}, folder / "vgg16.pth")
    torch.save(models.squeezenet1_1(num_classes=1).state_dict(), folder / "squeezenet.pth")
    return folder


@pytest.fixture
def required_options(tmp_path: Path, feature_networks: Path) -> Callable[[str], dict]:
    """Return the options that a kind of term requires, such as random weights in the published layout."""

    def options(kind: str) -> dict:
        generator = torch.Generator().manual_seed(4)
        if kind == "perceptual":
            sizes = {"0": (64, 3), "2": (64, 64)}
            tensors = {f"features.{n}.bias": torch.zeros(size[0]) for n, size in sizes.items()}
            for n, (outputs, inputs) in sizes.items():
                tensors[f"features.{n}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / 10
            torch.save(tensors, tmp_path / "vgg19.pth")
            return {"layers": {"conv1_2": 1.0}, "weights": tmp_path / "vgg19.pth"}
        if kind == "lpips":
            return {"network": "squeeze", "weights": feature_networks / "squeezenet.pth"}
        if kind == "dists":
            return {"weights": feature_networks / "vgg16.pth"}
        if kind == "rank":
            torch.manual_seed(5)
            ranker = Ranker(features=8)
            for parameter in ranker.parameters():
                if parameter.ndim > 1:  # at the usual start the ranks of all images are nearly the same
                    torch.nn.init.kaiming_normal_(parameter, a=0.2)
            torch.save(ranker.state_dict(), tmp_path / "ranker.pth")
            return {"weights": tmp_path / "ranker.pth"}
        return {"scale_weights": [0.5, 0.5]} if kind == "ms_ssim" else {}

    return options


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_changes_the_generators_gradient(kind: str, required_options: Callable[[str], dict]) -> None:
    batch = make_batch()
    alone = gradient({"base": {"kind": "l2", "weight": 0.5}}, batch)
    both = gradient({"base": {"kind": "l2", "weight": 0.5}, "tested": {"kind": kind, **required_options(kind)}}, batch)
    assert (both - alone).norm() > 1e-3 * alone.norm()


def test_regression_minimizes_its_objective() -> None:
    batch, net = make_batch(), TwoOutputs()
    terms = {"pixel": {"kind": "l1", "weight": 2.0}, "branch": {"kind": "gradient_branch"}}
    method = RegressionSpec.model_validate({"kind": "regression", "terms": terms}).build(setup(net))
    (update,) = method.updates(batch, Clock(5, 1))
    sum(losses_to_backward(update, {}, 1, 1).values()).backward()
    assert update.net == "g"
    assert list(update.losses) == ["pixel", "branch"]
    torch.testing.assert_close(net.conv.weight.grad, gradient(terms, batch))


@pytest.mark.parametrize("kind", ["l1", "l2", "charbonnier"])
def test_pace_changes_the_gradient(kind: str) -> None:
    batch = make_batch()
    plain, paced = gradient({"x": {"kind": kind}}, batch), gradient({"x": {"kind": kind, "pace": {}}}, batch)
    assert (plain - paced).norm() > 0.05 * plain.norm()


def test_weight_scales_a_term() -> None:
    batch = make_batch()
    once = gradient({"x": {"kind": "self_similarity", "weight": 1.0}}, batch)
    twice = gradient({"x": {"kind": "self_similarity", "weight": 2.0}}, batch)
    torch.testing.assert_close(twice, 2 * once)


def test_a_mean_is_divided_by_the_micro_batches() -> None:
    parts = losses_to_backward(Update("g", {"x": torch.tensor(6.0)}), {}, micro_batches=3, processes=1)
    assert parts["x"] == 2.0


def test_a_masked_sum_is_divided_by_the_total_count() -> None:
    update = Update("g", {"x": MaskedSum(torch.tensor(6.0), torch.tensor(2))})
    assert losses_to_backward(update, {}, 1, 1)["x"] == 3.0
    # 12 pixels over two processes: each process adds total/12, and averaging over processes halves it.
    assert losses_to_backward(update, {"x": torch.tensor(12)}, 1, 2)["x"] == 1.0


def test_an_empty_mask_is_zero_with_a_gradient() -> None:
    total = torch.zeros((), requires_grad=True)
    part = losses_to_backward(Update("g", {"x": MaskedSum(total, torch.tensor(0))}), {}, 1, 1)["x"]
    assert part == 0.0
    part.backward()
    assert total.grad == 1.0


def test_the_mask_of_a_batch_is_used() -> None:
    batch = make_batch()
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[0, 0, 16, 16] = True
    term = TypeAdapter(Term).validate_python({"kind": "self_similarity"})
    assert term.count(Batch(batch.hr, batch.lr, mask)) == 1
    assert term(Outputs(batch.hr * 0.9), Batch(batch.hr, batch.lr, mask), Clock(1, 1)).count == 1


def test_the_mask_of_a_batch_is_thinned_by_the_stride() -> None:
    batch = make_batch()
    mask = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.3
    brought = Batch(batch.hr, batch.lr, mask)
    for stride in (1, 2, 3, 5):
        term = SelfSimilarityTerm(stride=stride, threshold=1e6)
        expected = mask.clone()
        for row in range(32):
            for column in range(32):
                if row % stride != column % stride:
                    expected[:, :, row, column] = False
        assert torch.equal(term.mask(brought), expected)
        assert term.count(brought) == expected.sum()


def test_torchvisions_file_at_a_path_is_used(torch_home: Path) -> None:
    images = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for kind in ("perceptual", "lpips", "dists"):
        options = {"kind": kind} | ({"network": "vgg16"} if kind == "perceptual" else {})
        if kind != "perceptual":
            pytest.importorskip("torchmetrics")
        path = torch_home / "hub" / "checkpoints" / "vgg16-397923af.pth"
        values = [
            objective({"x": {**options, "weights": place}}).terms["x"](
                Outputs(images[0]), Batch(images[1], images[1], None), Clock(1, 1)
            )
            for place in (path, None)
        ]
        assert torch.equal(*values)


def test_unavailable_weights_are_refused_at_build(tmp_path: Path, monkeypatch) -> None:
    missing = tmp_path / "no.pth"
    for kind in ("perceptual", "lpips", "dists", "rank"):
        with pytest.raises(InputError, match=r"no\.pth"):
            objective({"x": {"kind": kind, "weights": missing}})
    torch.save({"conv1_1.weight": torch.zeros(1)}, missing)
    with pytest.raises(
        InputError,
        match=r"^method\.terms\.x: VGG19: weights .*no\.pth must contain features\.0\.weight .* got none; pass",
    ):
        objective({"x": {"kind": "perceptual", "weights": missing}})
    with pytest.raises(
        InputError,
        match=r"^method\.terms\.x: AlexNet: weights .*no\.pth must .*; pass torchvision's alexnet-owt-7be5be79",
    ):
        objective({"x": {"kind": "lpips", "network": "alex", "weights": missing}})
    with pytest.raises(InputError, match="expected the weights of RankSRGAN's Ranker_VGG12_296"):
        objective({"x": {"kind": "rank", "weights": missing}})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    for term, file in (
        ({"kind": "perceptual"}, "vgg19-dcbb9e9d"),
        ({"kind": "perceptual", "network": "alexnet"}, "alexnet-owt-7be5be79"),
        ({"kind": "lpips"}, "vgg16-397923af"),
        ({"kind": "lpips", "network": "squeeze"}, "squeezenet1_1-b8a52dc0"),
        ({"kind": "dists"}, "vgg16-397923af"),
    ):
        with pytest.raises(InputError, match=rf"file {file}\.pth in .* download failed \(no network\); put the file"):
            objective({"x": term})


def unreachable(*args, **kwargs) -> None:
    raise OSError("no network")


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            {"kind": "perceptual", "layers": {"conv5_5": 1}},
            r"layers must be one of conv1_1, .*conv5_4, got 'conv5_5'",
        ),
        (
            {"kind": "perceptual", "network": "alexnet", "layers": {"conv5_4": 1}},
            r"AlexNet: layers must be one of conv1, .*conv5, got 'conv5_4'",
        ),
        ({"kind": "perceptual", "network": "resnet"}, "'vgg19', 'vgg16' or 'alexnet'"),
        ({"kind": "lpips", "network": "vgg19"}, "'alex', 'vgg' or 'squeeze'"),
        ({"kind": "perceptual", "layers": {}}, "at least 1 item"),
        ({"kind": "perceptual", "feature_weight": 0}, "feature_weight and style_weight must not both be 0"),
        ({"kind": "artifact", "window_px": 6}, "window_px must be odd, got 6"),
        ({"kind": "best_buddy", "alpha": 0, "beta": 0}, "alpha and beta must not both be 0"),
        ({"kind": "best_buddy", "scales": [0.5]}, r"scales must be in \(0, 1\] and contain 1, got \[0.5\]"),
        ({"kind": "focal_frequency", "alpha": -1}, "greater than or equal to 0"),
        ({"kind": "rank"}, "Field required"),
    ],
)
def test_senseless_options_are_refused(term: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Term).validate_python(term)


@pytest.mark.parametrize("kind", KINDS)
def test_a_term_reads_back_as_itself(kind: str, required_options: Callable[[str], dict]) -> None:
    adapter = TypeAdapter(Term)
    term = adapter.validate_python({"kind": kind, **required_options(kind)})
    assert adapter.validate_python(adapter.dump_python(term, mode="json")) == term


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_of_every_term_can_be_matched(kind: str, required_options: Callable[[str], dict]) -> None:
    match = {"match": "largest", "calibrate_steps": 5}
    term = TypeAdapter(Term).validate_python({"kind": kind, "weight": match, **required_options(kind)})
    assert term.weight == MatchLargest(match="largest", calibrate_steps=5)


def test_only_artifact_needs_ema_and_only_gradient_branch_a_branch() -> None:
    members = get_args(get_args(Term)[0])
    kinds = dict(zip(KINDS, members, strict=True))
    assert [kind for kind in KINDS if kinds[kind].needs_ema] == ["artifact"]
    assert [kind for kind in KINDS if kinds[kind].needs_branch] == ["gradient_branch"]


def test_the_network_of_a_term_is_not_trained(required_options: Callable[[str], dict]) -> None:
    for kind in ("perceptual", "lpips", "dists", "rank"):
        method = RegressionSpec.model_validate(
            {"kind": "regression", "terms": {"x": {"kind": kind, **required_options(kind)}}}
        ).build(setup(TwoOutputs()))
        assert [name for name, _ in method.nets.named_parameters()] == ["g.conv.weight", "g.conv.bias"]
