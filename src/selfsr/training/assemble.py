"""From a recipe to the parts of a run: networks on the device, optimizers, data, the published copy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from selfsr import __version__
from selfsr.data.loader import Loader
from selfsr.errors import InputError
from selfsr.machine.device import choose_device, choose_precision
from selfsr.methods import Method, Setup
from selfsr.nets.weights.load import load_into
from selfsr.recipe import Recipe, dump_recipe
from selfsr.runfolder.checkpoints import load_state
from selfsr.training.batch_norm import normalize_over_processes
from selfsr.training.ema import Ema

_MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass
class Run:
    """The parts of a run, and how far it is.

    Attributes:
        recipe: what was asked for.
        folder: the run folder.
        accelerator: devices, processes and mixed precision.
        method: what is stepped on, around the prepared networks.
        optimizers: by the name of the network.
        published: the averaged generator: what is judged, sampled and saved.
        loader: batches from the step after `step` on.
        step: steps that are done.
        best: the best score so far, by name; empty before the first evaluation.
    """

    recipe: Recipe
    folder: Path
    accelerator: Accelerator
    method: Method
    optimizers: dict[str, Any]
    ema: Ema
    loader: Loader
    memory_format: torch.memory_format
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)

    def ema_net(self) -> nn.Module:
        """Return the generator to judge: the moving average, or a copy of the weights where there is none."""
        if self.recipe.ema_decay is None:
            self.ema.update(self.accelerator.unwrap_model(self.method.nets["g"]))
        return self.ema.net

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; `step`, seeds and schedules are functions of the recipe and the step."""
        unwrap = self.accelerator.unwrap_model
        scaler = self.accelerator.scaler
        return {
            "nets": {name: unwrap(net).state_dict() for name, net in self.method.nets.items()},
            "method": self.method.state(),
            "ema": self.ema.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": None if scaler is None else scaler.state_dict(),
            "best": self.best,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint."""
        for name, net in self.method.nets.items():
            self.accelerator.unwrap_model(net).load_state_dict(state["nets"][name])
        self.method.load(state["method"])
        self.ema.load_state_dict(state["ema"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        self.step = state["step"]

    def metadata(self) -> dict[str, str]:
        """Return what a weights file says of itself."""
        return {
            "architecture": self.recipe.network.kind,
            "scale": ", ".join(map(str, self.recipe.scales)),
            "step": str(self.step),
            "selfsr": __version__,
            "recipe": dump_recipe(self.recipe),
        }


def assemble(recipe: Recipe, folder: Path, *, device: str, resume: bool) -> Run:
    """Build every part of the run; nothing is written yet.

    Raises:
        InputError: something that the recipe names is missing or does not fit.
    """
    AcceleratorState._reset_state()  # a second run in one process may use another precision
    where = choose_device(device)
    accelerator = Accelerator(
        cpu=where.type == "cpu",
        mixed_precision=_MIXED_PRECISION[choose_precision(recipe.precision, where)],
        # Buffers need not be copied from process to process: they start alike, and move alike, as batch norm's
        # statistics are those of all processes. Copied before a pass, they would be overwritten while a pass before
        # it, as a discriminator has two, still needs them for its gradient.
        # And parts of the scales that a step is not of get no gradient, which DDP must be told.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=recipe.network.idle_parts)
        ],
    )
    world = accelerator.num_processes
    if recipe.batch % (world * recipe.accumulate):
        raise InputError(
            f"recipe: batch must be a multiple of processes x accumulate = {world} x {recipe.accumulate}, "
            f"got {recipe.batch}."
        )
    torch.manual_seed(recipe.seed)
    generator = recipe.network.build(recipe.scales[0], recipe.data.channels)
    if recipe.start_from is not None and not resume:
        message = load_into(generator, recipe.start_from, transfer=recipe.start_transfer)
        accelerator.print(message)
    here = torch.device(accelerator.device)
    memory_format = _memory_format(recipe, here)
    generator = generator.to(device=here, memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    ema = Ema(generator, recipe.ema_decay or 0.0)
    ema_forward = _ema_forward(ema.net, accelerator) if recipe.ema_decay is not None else None
    method = recipe.method.build(
        Setup(generator, here, recipe.data.channels, max(recipe.crops_px.values()), ema_forward)
    )
    if not resume:
        for name, path in recipe.method.pretrained.items():
            accelerator.print(f"{name}: {load_into(method.nets[name], path)}")
    optimizers = {}
    for name, net in method.nets.items():
        net = net.to(memory_format=memory_format).train()  # pyright: ignore[reportCallIssue]
        if world > 1:
            normalize_over_processes(net)
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        net, optimizer = accelerator.prepare(net, recipe.optimizers[name].build(trained))
        method.nets[name] = net
        optimizers[name] = optimizer
    state = load_state(folder) if resume else {"step": 0}
    loader = Loader(
        recipe.data.build_each(recipe.crops_px),
        batch=recipe.batch,
        seed=recipe.seed,
        rank=accelerator.process_index,
        world=world,
        start_step=state["step"],
        workers=recipe.workers,
    )
    run = Run(recipe, folder, accelerator, method, optimizers, ema, loader, memory_format)
    if resume:
        run.load(state)
    return run


def _ema_forward(net: nn.Module, accelerator: Accelerator) -> Callable[[Tensor], Tensor]:
    def upscale(lr: Tensor) -> Tensor:
        with torch.no_grad(), accelerator.autocast():
            return net(lr).float()

    return upscale


def _memory_format(recipe: Recipe, device: torch.device) -> torch.memory_format:
    if recipe.memory_format == "auto":
        faster = recipe.network.convolutional and device.type in ("cpu", "cuda")
        return torch.channels_last if faster else torch.contiguous_format
    return torch.channels_last if recipe.memory_format == "channels_last" else torch.contiguous_format
