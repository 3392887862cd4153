"""The kernels that a training step launches, and that the host does not wait for the device within it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import count_launches
import steps
from selfsr.runfolder.log import Meter
from selfsr.step import Clock
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="the photo to measure on comes with scikit-image")
    folder = steps.write_photo(tmp_path_factory.mktemp("launches"))
    steps.write_random_vgg(folder)
    return folder


# ---- the counter


@pytest.mark.parametrize(
    ("sizes", "lists", "launches"),
    [
        ([10] * 64, 2, 1),
        ([10] * 65, 2, 2),
        ([10] * 110, 1, 1),
        ([10] * 37, 4, 2),
        ([320 * 65536], 2, 1),
        ([320 * 65536 + 1], 2, 2),
        ([320 * 65536, 1], 2, 2),
        ([], 2, 0),
    ],
)
def test_lists_need_as_many_launches_as_their_tensors_and_blocks(sizes: list[int], lists: int, launches: int) -> None:
    assert count_launches.count_list_launches(sizes, lists) == launches


def test_counter_knows_views_convolutions_and_lists() -> None:
    image, weight, bias = torch.rand(1, 3, 8, 8), torch.rand(4, 3, 3, 3), torch.rand(4)
    with count_launches.LaunchCounter() as counter:
        torch.nn.functional.conv2d(image, weight, bias)  # 2
        torch.nn.functional.conv2d(image, weight)  # 1
        image.view(-1)[1:].unsqueeze(0)
        torch.empty_like(image)
        image.to(torch.bfloat16)  # 1
        image + 1  # 1
        torch._foreach_add_([image] * 65, [image] * 65)  # 2
    assert counter.total == 7, counter.launches


# ---- the steps


@pytest.mark.parametrize(("case", "most"), [("edsr", 430), ("esrgan", 5000)])
def test_step_launches_few_kernels(folder: Path, case: str, most: int) -> None:
    """Before weights were cast together and scalars watched together, they were 515 and 6,382."""
    small = count_launches.shrink(steps.CASES[case], 8)
    counter = count_launches.count_step(small, folder, precision="bfloat16")
    assert most * 0.5 < counter.total <= most, counter.launches.most_common(20)


@pytest.mark.parametrize("case", ["edsr", "esrgan"])
def test_host_reads_nothing_of_the_device_in_a_step(folder: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method that copies to the host is a wait on a GPU; the numbers of edges are on the host before the pass."""
    small = count_launches.shrink(steps.CASES[case], 8)
    similarity = {"kind": "self_similarity", "backend": "eager"}  # the one that a GPU may use
    method = {**small.method, "terms": {**small.method["terms"], "similarity": similarity}}
    run, batches = steps.start_run(small, folder, "cpu", method=method)
    meter, guard = Meter(), FiniteGuard()

    def step(number: int) -> None:
        take_step(run, batches, Clock(number, steps.STEPS_PER_EPOCH, 10**6), meter, guard)

    step(1)  # its check of the images' range waits once
    batches = [batch.to(torch.device("cpu")) for batch in batches]
    reads: list[tuple[str, Tensor]] = []

    def record(name: str) -> None:
        original = getattr(Tensor, name)

        def call(tensor: Tensor, *arguments: Any) -> Any:
            reads.append((name, tensor))
            return original(tensor, *arguments)

        monkeypatch.setattr(Tensor, name, call)

    for name in ("tolist", "item", "numpy", "__bool__", "__int__", "__float__", "__index__"):
        record(name)
    step(2)
    counts = {state["step"] for optimizer in run.optimizers.values() for state in optimizer.state.values()}
    (edges,) = batches[0].edges.values()
    # Adam counts its steps on the host.
    assert [(name, tensor is edges.row_counts()) for name, tensor in reads if tensor not in counts] == [
        ("tolist", True)
    ]


def test_edges_of_a_batch_are_found_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsr.terms import edge

    found = []
    find = edge.edge_mask
    monkeypatch.setattr(edge, "edge_mask", lambda *args, **options: found.append(options) or find(*args, **options))
    small = count_launches.shrink(steps.CASES["edsr"], 8)
    terms = {
        "similarity": {"kind": "self_similarity"},
        "edges": {"kind": "edge_l1"},
        "all edges": {"kind": "edge_l1", "stride": 1},
    }
    method = {**small.method, "terms": {**small.method["terms"], **terms}}
    run, batches = steps.start_run(small, folder, "cpu", method=method)
    take_step(run, batches, Clock(1, steps.STEPS_PER_EPOCH, 10**6), Meter(), FiniteGuard())
    assert sorted(options["stride"] for options in found) == [1, 3]
