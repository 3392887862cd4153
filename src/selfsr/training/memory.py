"""Estimate the memory of a training step before it runs, on tensors without data."""

import tempfile
import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from selfsr.errors import InputError
from selfsr.machine.device import choose_device, choose_precision
from selfsr.nets.diffusion.base_layouts import find_layout, skip_weights, write_layout
from selfsr.nets.diffusion.frozen import PartlyFrozen
from selfsr.nets.diffusion.pretrained import PretrainedSpec
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


@dataclass(frozen=True)
class StepMemory:
    """The bytes of the tensors of a training step, by their use.

    Attributes:
        frozen: weights and buffers of the generator that never change, without those of an autoencoder.
        autoencoder: weights of the autoencoder.
        trained: weights of the generator that are trained, and its other buffers.
        average: the EMA, or the copy that is evaluated, without the frozen weights that it shares.
        others: other networks, such as discriminators and those of perceptual losses, and constants of losses.
        optimizer: state of all optimizers.
        gradients: gradients of all trained weights, which are complete at the end of a backward pass.
        kept: the outputs of layers that the generator's backward pass needs, as they are at its start.
        peak: the most bytes that are alive at once, with all of these.
        precision: the precision of the step.
    """

    frozen: int
    autoencoder: int
    trained: int
    average: int
    others: int
    optimizer: int
    gradients: int
    kept: int
    peak: int
    precision: str

    @property
    def passes(self) -> int:
        """Bytes at the peak in addition to weights and state: gradients, outputs of layers, images."""
        state = (self.frozen, self.autoencoder, self.trained, self.average, self.others, self.optimizer)
        return self.peak - sum(state)


def estimate_step_bytes(recipe: Recipe, *, device: str = "auto") -> int | None:
    """Return the peak bytes of the tensors of a training step (see `estimate_step_memory`)."""
    memory = estimate_step_memory(recipe, device=device)
    return None if memory is None else memory.peak


def estimate_step_memory(
    recipe: Recipe, *, device: str = "auto", layout: str | None = None, load_data: bool = True
) -> StepMemory | None:
    """Return the bytes of the tensors of a training step: weights, EMA, gradients, optimizer, activations.

    Two steps run on fake tensors, which have a shape and no data, so a step for a GPU of 80 GB is estimated in seconds
    on a laptop. The networks are built on the CPU, in the precision that the recipe has on `device`; a pretrained base
    is not read, only its configuration.
    What libraries and compiled losses allocate inside, such as workspaces of convolutions, is not counted, nor is the
    evaluation.

    Args:
        recipe: the recipe of the run, for one process.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        layout: name of a known base whose sizes replace those of the recipe's base (see `find_layout`).
        load_data: False leaves the training images unread.

    Returns:
        The bytes, or None if a part of the step needs the values of tensors.

    Raises:
        InputError: something that the recipe names is missing or does not fit.
    """
    precision = choose_precision(recipe.precision, choose_device(device))
    changes: dict[str, Any] = {
        "precision": "bfloat16" if precision == "float16" else precision,  # a CPU does not train in float16
        "start_from": None,
        "method": recipe.method.with_costliest_step(),
        "workers": 0,
        "compile": "off",
    }
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with tempfile.TemporaryDirectory(prefix="selfsr-") as name, ExitStack() as stack:
        if isinstance(recipe.network, PretrainedSpec):
            if recipe.network.base.is_dir() or not load_data:  # else the error about the base is the usual one
                changes["network"], tokens = _take_layout(recipe.network, layout, Path(name) / "base")
                stack.enter_context(skip_weights(tokens))
        elif layout is not None:
            raise InputError(
                f"--layout: expected a recipe with a network on a pretrained base, got {recipe.network.kind}; leave "
                "it out."
            )
        run = assemble(
            recipe.model_copy(update=changes),
            Path(name) / "run",
            device="cpu",
            resume=False,
            load_data=load_data,
        )
    if load_data:
        run.loader.close()
    try:
        return _take_steps(run, mode, precision)
    except _NEEDS_VALUES:
        return None


def _take_layout(spec: PretrainedSpec, layout: str | None, folder: Path) -> tuple[PretrainedSpec, int]:
    """Return the network with a folder that has the configurations of its base, and the tokens of its text."""
    tokens = 77
    base = spec.base
    if layout is not None or not base.is_dir():
        tokens, base = write_layout(find_layout(spec.base, layout), folder), folder
    return spec.model_copy(update={"base": base, "base_sha256": None}), tokens


def _take_steps(run: TrainingRun, mode: FakeTensorMode, precision: str) -> StepMemory:
    """Take steps on fake tensors, and measure what is alive at their start, before backward passes and at the peak."""
    recipe, generator = run.recipe, run.generator
    autoencoder = getattr(getattr(generator, "space", None), "net", None)
    starts: list[int] = []
    alive = 0
    backward = run.accelerator.backward

    def note_start(loss: Tensor, **options: Any) -> None:
        starts.append(counted.alive)
        backward(loss, **options)

    run.accelerator.backward = note_start
    with mode, _FakePeak(mode) as counted:
        parts = {
            "autoencoder": counted.count_weights(autoencoder.parameters() if autoencoder is not None else ()),
            "frozen": counted.count_weights(_list_frozen(generator)),
            "trained": counted.count_weights((*generator.parameters(), *generator.buffers())),
            "average": counted.count_weights((*run.ema.net.parameters(), *run.ema.net.buffers())),
        }
        for net in run.method.nets.values():
            counted.count_weights((*net.parameters(), *net.buffers()))
        for step in range(1, _STEPS + 1):
            clock = Clock(step, recipe.steps_per_epoch, recipe.steps)
            alive, starts[:] = counted.alive, []
            take_step(run, _make_batches(run), clock, Meter(), FiniteGuard())
    states = [state for optimizer in run.optimizers.values() for state in optimizer.state.values()]
    tensors = [tensor for state in states for tensor in state.values() if isinstance(tensor, Tensor)]
    trained = [p for net in run.method.nets.values() for p in net.parameters() if p.requires_grad]
    return StepMemory(
        **parts,
        others=counted.weights - sum(parts.values()),
        optimizer=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        gradients=sum(parameter.numel() * parameter.element_size() for parameter in trained),
        kept=max(starts) - alive,
        peak=counted.peak,
        precision=precision,
    )


def _list_frozen(net: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers that never change."""
    names = net.frozen_names() if isinstance(net, PartlyFrozen) else set()
    buffers = [buffer for name, buffer in net.named_buffers() if name in names]
    return [*(parameter for parameter in net.parameters() if not parameter.requires_grad), *buffers]


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
        alive: the bytes that are alive.
        weights: the bytes of tensors that existed before, such as weights; they stay alive.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.peak = 0
        self.alive = 0
        self.weights = 0
        self._mode = mode
        self._storages: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._kept: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count_weights(
            tensor
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor)
        )
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, FakeTensor):
                self._count(tensor)
        return out

    def count_weights(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that stay alive, and return the bytes of those that were not counted before.

        The mode computes with the one fake tensor that it has for each real one.
        """
        before = self.alive
        for tensor in tensors:
            fake = tensor if isinstance(tensor, FakeTensor) else self._mode.from_tensor(tensor)
            if fake.untyped_storage() not in self._storages:
                self._kept.append(fake)
                self._count(fake)
        self.weights += self.alive - before
        return self.alive - before

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._storages:
            self._storages.add(storage)
            self._add(storage.nbytes())
            weakref.finalize(storage, self._add, -storage.nbytes())

    def _add(self, size: int) -> None:
        self.alive += size
        self.peak: int = max(self.peak, self.alive)
