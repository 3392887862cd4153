"""The mean over processes: its value, and the gradient of a relativistic loss through it."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch

from selfsr.losses.adversarial import generator_loss
from selfsr.machine import distributed
from selfsr.machine.distributed import mean_over_processes, share_from_first, sum_over_processes
from two_processes import run_in_two_processes

# Each of two processes has half of the logits; gradients are averaged over processes, as in training.
PROGRAM = """
import sys
import torch
from torch import distributed
from selfsr.losses.adversarial import generator_loss
from selfsr.machine.distributed import mean_over_processes, share_from_first, sum_over_processes

distributed.init_process_group("gloo")
half = slice(0, 2) if distributed.get_rank() == 0 else slice(2, 4)
weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
real, fake = (weight * torch.tensor(x, dtype=torch.float64)[half] for x in ([1.0, 0.2, -0.4, 2.0], [-0.7, 0.1, 0.9, 3]))
mean = lambda logits: mean_over_processes(logits.mean())
loss = generator_loss(real, fake, objective="vanilla", form="relativistic", mean=mean)
loss.backward()
shared = torch.tensor(share_from_first(lambda: 1.5 + distributed.get_rank()), dtype=torch.float64)
total = sum_over_processes(torch.stack([loss, weight.grad, shared])) / 2
if distributed.get_rank() == 0:
    torch.save(total, sys.argv[1])
distributed.destroy_process_group()
"""


def test_mean_over_two_processes_equals_one_process(tmp_path: Path) -> None:
    (tmp_path / "halves.py").write_text(PROGRAM)
    run_in_two_processes("halves.py", "total.pt", cwd=tmp_path)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    real = weight * torch.tensor([1.0, 0.2, -0.4, 2.0], dtype=torch.float64)
    fake = weight * torch.tensor([-0.7, 0.1, 0.9, 3.0], dtype=torch.float64)
    loss = generator_loss(real, fake, objective="vanilla", form="relativistic")
    loss.backward()
    shared = torch.tensor(1.5, dtype=torch.float64)  # the first process's number in both
    torch.testing.assert_close(torch.load(tmp_path / "total.pt"), torch.stack([loss.detach(), weight.grad, shared]))


def test_single_process_gets_its_own_tensor() -> None:
    value = torch.tensor(3.0)
    assert mean_over_processes(value) is value
    assert sum_over_processes(value) is value
    assert share_from_first(lambda: 3.5) == 3.5


def test_processes_wait_for_the_first_one_longer_than_gloo_does(monkeypatch) -> None:
    """FID of a large set may last longer than gloo's half hour."""
    limits = []
    monkeypatch.setattr(distributed, "_control_groups", {})
    monkeypatch.setattr(distributed, "process_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "group", SimpleNamespace(WORLD=object()))
    monkeypatch.setattr(
        torch.distributed, "new_group", lambda *, backend, timeout: limits.append((backend, timeout)) or str(timeout)
    )
    used = []
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda *_, src, group: used.append(group))
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda got, own, group: used.append(group) or fill(got))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, group, async_op: used.append(group))
    assert share_from_first(lambda: 3.5) == 3.5
    assert distributed.share_with_all(lambda: 3.5) == [3.5, 3.5]
    assert not distributed.StopAgreement().check(False)
    assert used == ["6:00:00", "6:00:00", "None"]  # a lost machine is noticed within gloo's limit, at the next step
    assert limits == [("gloo", timedelta(hours=6)), ("gloo", None)]


def fill(outcomes: list) -> None:
    outcomes[:] = [(3.5, None)] * len(outcomes)
