"""Estimate the memory of a training step before it runs, on tensors without data."""

import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from selfsr.machine.device import choose_device, choose_precision
from selfsr.recipe import Recipe
from selfsr.runfolder.log import Meter
from selfsr.step import Batch, Clock
from selfsr.training.assemble import TrainingRun, assemble
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step

# Operations whose result depends on values, which fake tensors do not have.
_NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
# The optimizer allocates its state in the first step, so the second one has the peak.
_STEPS = 2


def estimate_step_bytes(recipe: Recipe, *, device: str = "auto") -> int | None:
    """Return the peak bytes of the tensors of a training step: weights, EMA, gradients, optimizer, activations.

    Two steps run on fake tensors, which have a shape and no data, so a step for a GPU of 80 GB is estimated in seconds
    on a laptop. The networks are built on the CPU, in the precision that the recipe has on `device`.
    What libraries and compiled losses allocate inside, such as workspaces of convolutions, is not counted, nor is the
    evaluation.

    Args:
        recipe: the recipe of the run, for one process.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        The bytes, or None if a part of the step needs the values of tensors.

    Raises:
        InputError: something that the recipe names is missing or does not fit.
    """
    precision = choose_precision(recipe.precision, choose_device(device))
    if precision == "float16":  # which a CPU does not train in; bfloat16 has the same size
        precision = "bfloat16"
    rehearsed = recipe.model_copy(
        update={
            "precision": precision,
            "start_from": None,
            "method": recipe.method.rehearsal(),
            "workers": 0,
            "compile": "off",
        }
    )
    with tempfile.TemporaryDirectory(prefix="selfsr-") as name:
        run = assemble(rehearsed, Path(name), device="cpu", resume=False)
    run.loader.close()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, _FakePeak(mode) as counted:
            for net in (*run.method.nets.values(), run.ema.net):
                for tensor in (*net.parameters(), *net.buffers()):
                    counted.count_real(tensor)
            for step in range(1, _STEPS + 1):
                clock = Clock(step, recipe.steps_per_epoch, recipe.steps)
                take_step(run, _make_batches(run), clock, Meter(), FiniteGuard())
    except _NEEDS_VALUES:
        return None
    return counted.peak


def _make_batches(run: TrainingRun) -> list[Batch]:
    """Return the micro-batches of a step at the scale with the largest crops."""
    recipe = run.recipe
    scale = max(recipe.scales, key=lambda scale: recipe.crops_px[scale])
    hr_px, count = recipe.crops_px[scale], recipe.batch // recipe.accumulate

    def make(side_px: int) -> Tensor:
        return torch.empty(count, recipe.data.channels, side_px, side_px).to(memory_format=run.memory_format)

    return [Batch(make(hr_px), make(hr_px // scale), first_slot=index * count) for index in range(recipe.accumulate)]


class _FakePeak(TorchDispatchMode):
    """Count the bytes of fake tensors, and of the real ones that they are computed from.

    Attributes:
        peak: the most bytes that were alive at once.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.peak = 0
        self._mode = mode
        self._alive = 0
        self._storages: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._kept: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor):
                self.count_real(tensor)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, FakeTensor):
                self._count(tensor)
        return out

    def count_real(self, tensor: Tensor) -> None:
        """Count a weight; it stays alive. The mode computes with the one fake tensor that it has for each real one."""
        fake = self._mode.from_tensor(tensor)
        if fake.untyped_storage() not in self._storages:
            self._kept.append(fake)
            self._count(fake)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._storages:
            self._storages.add(storage)
            self._add(storage.nbytes())
            weakref.finalize(storage, self._add, -storage.nbytes())

    def _add(self, size: int) -> None:
        self._alive += size
        self.peak: int = max(self.peak, self._alive)
