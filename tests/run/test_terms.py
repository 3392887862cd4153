"""Terms and shares: every term acts on the generator, and masked losses do not depend on how a batch is cut."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from selfsr.data.batch import Batch
from selfsr.methods import Clock, Outputs, Ratio, Update
from selfsr.methods.regression import RegressionSpec
from selfsr.terms import Term
from selfsr.terms.objective import Objective
from selfsr.train import shares

KINDS = [get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(Term)[0])]


def make_batch(n: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(3)
    hr = torch.rand(n, 3, 32, 32, generator=generator)
    return Batch(hr=hr, lr=hr[:, :, ::2, ::2])


class TwoHeads(torch.nn.Module):
    """A generator with a branch: both outputs come from one convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 24, 3, padding=1)

    def forward(self, lr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sr, branch = torch.nn.functional.pixel_shuffle(self.conv(lr), 2).chunk(2, dim=1)
        return sr, branch


def objective(terms: dict) -> Objective:
    return Objective(TypeAdapter(dict[str, Term]).validate_python(terms), torch.device("cpu"))


def gradient(terms: dict, batch: Batch) -> torch.Tensor:
    net = TwoHeads()
    sr, branch = net(batch.lr)
    made = Outputs(sr, branch, average=0.9 * sr.detach())
    parts = shares(Update("g", objective(terms)(made, batch, Clock(5, 1))), {}, 1, 1)
    sum(parts.values()).backward()
    return net.conv.weight.grad


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_changes_the_generators_gradient(kind: str) -> None:
    batch = make_batch()
    alone = gradient({"base": {"kind": "l2", "weight": 0.5}}, batch)
    both = gradient({"base": {"kind": "l2", "weight": 0.5}, "tested": {"kind": kind}}, batch)
    assert (both - alone).norm() > 1e-3 * alone.norm()


def test_regression_minimises_its_objective() -> None:
    batch, net = make_batch(), TwoHeads()
    terms = {"pixel": {"kind": "l1", "weight": 2.0}, "branch": {"kind": "gradient_branch"}}
    method = RegressionSpec.model_validate({"kind": "regression", "terms": terms}).build(net, torch.device("cpu"))
    (update,) = method.updates(batch, Clock(5, 1))
    sum(shares(update, {}, 1, 1).values()).backward()
    assert update.net == "g"
    assert list(update.terms) == ["pixel", "branch"]
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


def test_a_mean_is_shared_among_micro_batches() -> None:
    parts = shares(Update("g", {"x": torch.tensor(6.0)}), {}, micro_batches=3, processes=1)
    assert parts["x"] == 2.0


def test_a_ratio_is_divided_by_the_count_over_everything() -> None:
    update = Update("g", {"x": Ratio(torch.tensor(6.0), torch.tensor(2))})
    assert shares(update, {}, 1, 1)["x"] == 3.0
    # 12 pixels over two processes: each process adds total/12, and averaging over processes halves it.
    assert shares(update, {"x": torch.tensor(12)}, 1, 2)["x"] == 1.0


def test_an_empty_mask_costs_nothing_and_keeps_the_gradient_path() -> None:
    total = torch.zeros((), requires_grad=True)
    part = shares(Update("g", {"x": Ratio(total, torch.tensor(0))}), {}, 1, 1)["x"]
    assert part == 0.0
    part.backward()
    assert total.grad == 1.0


def test_the_batchs_own_mask_is_used() -> None:
    batch = make_batch()
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[0, 0, 16, 16] = True
    term = TypeAdapter(Term).validate_python({"kind": "self_similarity"})
    assert term.count(Batch(batch.hr, batch.lr, mask)) == 1
    assert term(Outputs(batch.hr * 0.9), Batch(batch.hr, batch.lr, mask), Clock(1, 1)).count == 1
