"""Build the parts of a run from its recipe: networks on the device, optimizers, EMA and data."""

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
from selfsr.console import print_line
from selfsr.data.loader import Loader
from selfsr.errors import InputError, shorten
from selfsr.machine.device import choose_device, choose_precision
from selfsr.methods import Method, MethodSetup
from selfsr.models import find_model
from selfsr.nets.base import NETWORK_ENTRY, StatedNetwork
from selfsr.nets.weights.load import load_into
from selfsr.recipe import Recipe
from selfsr.recipe.private import dump_public_recipe, hide_folders_in_json
from selfsr.runfolder.checkpoints import check_same_network, load_state
from selfsr.step import GENERATOR
from selfsr.training.batch_norm import normalize_over_processes
from selfsr.training.ema import Ema
from selfsr.training.kernels import prepare_kernels
from selfsr.training.parameters import build_optimizer, freeze

_OPTIMIZER_OPTIONS = ("betas", "eps", "weight_decay")
_MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass
class TrainingRun:
    """The parts of a run, and its progress.

    Attributes:
        recipe: the recipe of the run.
        folder: the run folder.
        accelerator: devices, processes and mixed precision.
        method: the training method, around the prepared networks.
        optimizers: by name of the network.
        ema: moving average of the generator; it is evaluated, sampled and saved.
        loader: batches, beginning with the step after `step`.
        memory_format: memory layout of images and weights.
        step: number of finished steps.
        best: the best score so far, by its name; empty before the first evaluation.
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

    @property
    def generator(self) -> nn.Module:
        """The generator in training, not wrapped for several processes."""
        return self.accelerator.unwrap_model(self.method.nets[GENERATOR])

    def ema_net(self) -> nn.Module:
        """Return the generator to evaluate: its EMA, or a copy of its weights if the run keeps no EMA."""
        if self.recipe.ema_decay is None:
            self.ema.update(self.generator)
        return self.ema.net

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint. Seeds and schedules follow from the recipe and the step."""
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
        """Restore the state from a checkpoint."""
        for name, net in self.method.nets.items():
            self.accelerator.unwrap_model(net).load_state_dict(state["nets"][name])
        self.method.load(state["method"])
        self.ema.load_state_dict(state["ema"])
        for name, optimizer in self.optimizers.items():
            options = [{key: group[key] for key in _OPTIMIZER_OPTIONS} for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, own in zip(optimizer.param_groups, options, strict=True):
                group.update(own)  # those of the recipe, which may have changed since
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        self.step = state["step"]

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a weights file, without folders of this machine, since the file may be published."""
        entries = self.generator.file_metadata() if isinstance(self.generator, StatedNetwork) else {}
        return {
            **{key: hide_folders_in_json(text) for key, text in entries.items() if key == NETWORK_ENTRY},
            "architecture": self.recipe.network.kind,
            "scale": ", ".join(map(str, self.recipe.scales)),
            "step": str(self.step),
            "selfsr": __version__,
            "recipe": dump_public_recipe(self.recipe),
        }


def assemble(recipe: Recipe, folder: Path, *, device: str, resume: bool) -> TrainingRun:
    """Build every part of the run; write nothing yet.

    Args:
        recipe: the recipe of the run.
        folder: the run folder.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        resume: restore the newest checkpoint in `folder`; otherwise start from the recipe's weights files.

    Raises:
        InputError: something that the recipe names is missing or does not fit.
    """
    accelerator = _build_accelerator(recipe, device)
    torch.manual_seed(recipe.seed)
    generator = recipe.network.build(recipe.scales[0], recipe.data.channels)
    start = recipe.start_from or recipe.method.generator_start
    if start is not None and not resume:
        try:
            _print_once(accelerator, load_into(generator, find_model(start), fit=recipe.start_fit))
        except InputError as error:
            if recipe.start_from is None:
                raise InputError(f"method: the network starts from {start}, which does not fit it: {error}") from error
            raise
    if line := freeze(generator, recipe.freeze):
        _print_once(accelerator, line)
    memory_format = _memory_format(recipe, accelerator.device)
    if memory_format == torch.channels_last and any(parameter.ndim == 5 for parameter in generator.parameters()):
        raise InputError(
            f"memory_format: expected contiguous for {recipe.network.name}, whose weights have five axes, got "
            "channels_last; leave it out."
        )
    generator = generator.to(device=accelerator.device, memory_format=memory_format)  # pyright: ignore[reportCallIssue]
    ema = Ema(generator, recipe.ema_decay or 0.0)
    method = _build_method(recipe, generator, ema, accelerator, resume)
    optimizers = _prepare_networks(recipe, method, accelerator, memory_format)
    prepare_kernels(recipe, accelerator)
    state = _load_state(recipe, folder, accelerator) if resume else {"step": 0}
    loader = Loader(
        recipe.data.build_each(recipe.crops_px),
        batch=recipe.batch,
        seed=recipe.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        start_step=state["step"],
        workers=recipe.workers,
    )
    run = TrainingRun(recipe, folder, accelerator, method, optimizers, ema, loader, memory_format)
    if resume:
        _restore(run, state)
    return run


def _print_once(accelerator: Accelerator, text: str) -> None:
    """Print a line in one of all processes, in the style of the log."""
    if accelerator.is_main_process:
        print_line(text)


def _load_state(recipe: Recipe, folder: Path, accelerator: Accelerator) -> dict[str, Any]:
    """Return the newest readable checkpoint, after checking that the recipe can continue it."""
    state = load_state(folder, lambda text: _print_once(accelerator, text))
    check_same_network(recipe, folder)
    step = state["step"]
    if recipe.steps < step:
        raise InputError(
            f"resume: steps must be at least {step}, the steps that the run in {folder} has done, got {recipe.steps}; "
            "raise steps, or use the weights of the run as they are."
        )
    steps = torch.as_tensor(accelerator.gather(torch.tensor([step], device=accelerator.device))).tolist()
    if len(set(steps)) > 1:
        raise InputError(
            f"resume: all processes must read one checkpoint of {folder}, got those of steps {sorted(set(steps))}; "
            "make the folder readable on every machine."
        )
    return state


def _restore(run: TrainingRun, state: dict[str, Any]) -> None:
    try:
        run.load(state)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"resume: the checkpoint of step {state['step']} in {run.folder} must fit the recipe, got one that does "
            f"not ({shorten(reason)}); resume with the recipe of the run: selfsr train {run.folder} --resume"
        ) from error


def _build_accelerator(recipe: Recipe, device_name: str) -> Accelerator:
    AcceleratorState._reset_state()  # a second run in one process may use another precision
    device = choose_device(device_name)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=_MIXED_PRECISION[choose_precision(recipe.precision, device)],
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                # Buffers need no copy from process to process: they start equal and stay equal, since batch norm's
                # statistics cover all processes. A copy before a pass would overwrite buffers that an earlier pass,
                # of which a discriminator has two, still needs for its gradient.
                broadcast_buffers=False,
                # Branches of unused scales get no gradient; DDP must know.
                find_unused_parameters=recipe.network.has_unused_parameters,
            )
        ],
    )
    world = accelerator.num_processes
    if recipe.batch % (world * recipe.accumulate):
        raise InputError(
            f"recipe: batch must be a multiple of processes x accumulate = {world} x {recipe.accumulate}, "
            f"got {recipe.batch}; change batch or accumulate."
        )
    return accelerator


def _build_method(recipe: Recipe, generator: nn.Module, ema: Ema, accelerator: Accelerator, resume: bool) -> Method:
    """Build the method; unless the run resumes, load the weights files of its other networks."""
    setup = MethodSetup(
        generator,
        accelerator.device,
        recipe.data.channels,
        max(recipe.crops_px.values()),
        _ema_forward(ema.net, accelerator) if recipe.ema_decay is not None else None,
        recipe.seed,
    )
    method = recipe.method.build(setup)
    if not resume:
        for name, path in recipe.method.pretrained.items():
            _print_once(accelerator, f"{name}: {load_into(method.nets[name], path)}")
    return method


def _prepare_networks(
    recipe: Recipe, method: Method, accelerator: Accelerator, memory_format: torch.memory_format
) -> dict[str, Any]:
    """Wrap the method's networks for mixed precision and several processes; return their optimizers by name."""
    optimizers = {}
    for name, net in method.nets.items():
        net = net.to(memory_format=memory_format).train()  # pyright: ignore[reportCallIssue]
        if accelerator.num_processes > 1:
            normalize_over_processes(net)
        optimizer = build_optimizer(net, recipe.optimizers[name], f"optimizers.{name}.groups")
        method.nets[name], optimizers[name] = accelerator.prepare(net, optimizer)
    return optimizers


def _ema_forward(net: nn.Module, accelerator: Accelerator) -> Callable[[Tensor], Tensor]:
    def forward(lr: Tensor) -> Tensor:
        with torch.no_grad(), accelerator.autocast():
            return net(lr).float()

    return forward


def _memory_format(recipe: Recipe, device: torch.device) -> torch.memory_format:
    if recipe.memory_format == "auto":
        faster = recipe.network.convolutional and device.type in ("cpu", "cuda")
        return torch.channels_last if faster else torch.contiguous_format
    return torch.channels_last if recipe.memory_format == "channels_last" else torch.contiguous_format
