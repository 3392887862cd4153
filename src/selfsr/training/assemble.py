"""Build the parts of a run from its recipe: networks on the device, optimizers, EMA and data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from selfsr import __version__
from selfsr.console import print_line
from selfsr.data.loader import Loader
from selfsr.errors import InputError, describe_exception
from selfsr.machine.arithmetic import Arithmetic, Tf32
from selfsr.machine.attempts import choose_init_method
from selfsr.machine.device import choose_device, choose_precision
from selfsr.machine.distributed import share_from_first
from selfsr.methods import Method, MethodSetup
from selfsr.models import find_model
from selfsr.nets.base import NETWORK_ENTRY, StatedNetwork
from selfsr.nets.diffusion.frozen import PartlyFrozen
from selfsr.nets.weights.load import load_into
from selfsr.recipe import Recipe
from selfsr.recipe.optim import ImportedSpec
from selfsr.recipe.private import dump_public_recipe, hide_folders_in_json
from selfsr.recipe.schedules import Plateau, PlateauSpec
from selfsr.runfolder.checkpoints import check_same_network, load_state
from selfsr.step import GENERATOR
from selfsr.training.batch_norm import normalize_over_processes
from selfsr.training.compilation import compile_networks
from selfsr.training.ema import Ema
from selfsr.training.fused import fuse_optimizer, keep_form
from selfsr.training.kernels import prepare_kernels
from selfsr.training.machines import agree_on_resume, check_same_recipe
from selfsr.training.optimizers import averaged_weights, check_averaging, check_exact_resume, read_group_options
from selfsr.training.parameters import build_optimizer, freeze
from selfsr.training.weight_casts import cast_weights_together

_MIXED_PRECISION = {"float32": "no", "tf32": "no", "bfloat16": "bf16", "float16": "fp16"}
# Where float32 becomes TF32. Where networks compute in half precision, what stays in float32 is as in PyTorch.
_TF32: dict[str, Tf32] = {"float32": "off", "tf32": "all", "bfloat16": "convolutions", "float16": "convolutions"}
# The type of weights in a pass, by accelerate's names of mixed precision.
_CAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
        arithmetic: how a GPU computes in a step.
        is_compiled: whether the networks are compiled.
        resumed: whether the run continues from a checkpoint.
        step: number of finished steps.
        best: the best score so far, by its name; empty before the first evaluation.
        plateau: the state of a schedule that follows the score; None for the other schedules.
    """

    recipe: Recipe
    folder: Path
    accelerator: Accelerator
    method: Method
    optimizers: dict[str, Any]
    ema: Ema
    loader: Loader
    memory_format: torch.memory_format
    arithmetic: Arithmetic
    is_compiled: bool = False
    resumed: bool = False
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    plateau: Plateau | None = None

    @property
    def generator(self) -> nn.Module:
        """The generator in training, not wrapped for several processes."""
        return self.accelerator.unwrap_model(self.method.nets[GENERATOR])

    def ema_net(self) -> nn.Module:
        """Return the generator to evaluate: its EMA, or a copy of its weights if the run keeps no EMA.

        The copy has the averaged weights if the optimizer averages them.
        """
        if self.recipe.ema_decay is None:
            with averaged_weights(self.optimizers[GENERATOR]):
                self.ema.update(self.generator)
        return self.ema.net

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint. Seeds and schedules follow from the recipe and the step."""
        unwrap = self.accelerator.unwrap_model
        scaler = self.accelerator.scaler
        return {
            "nets": {name: unwrap(net).state_dict() for name, net in self.method.nets.items()},
            "method": self.method.state(),
            "ema": None if self.recipe.ema_decay is None else self.ema.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": None if scaler is None else scaler.state_dict(),
            "best": self.best,
            "plateau": None if self.plateau is None else self.plateau.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        for name, net in self.method.nets.items():
            self.accelerator.unwrap_model(net).load_state_dict(state["nets"][name])
        self.method.load(state["method"])
        # A run that keeps an average only from now on begins with the weights themselves.
        self.ema.load_state_dict(self.generator.state_dict() if state["ema"] is None else state["ema"])
        for name, optimizer in self.optimizers.items():
            spec = self.recipe.optimizers[name]
            options = [read_group_options(spec, group) for group in optimizer.param_groups]
            optimizer.load_state_dict(keep_form(optimizer, state["optimizers"][name]))
            for group, own in zip(optimizer.param_groups, options, strict=True):
                group.update(own)  # those of the recipe, which may have changed since
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        if self.plateau is not None and state.get("plateau"):  # none if the run began with another schedule
            self.plateau.load(state["plateau"])
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


def assemble(
    recipe: Recipe,
    folder: Path,
    *,
    device: str,
    resume: bool | Literal["auto"],
    load_data: bool = True,
) -> TrainingRun:
    """Build every part of the run; write nothing yet.

    Args:
        recipe: the recipe of the run.
        folder: the run folder.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        resume: restore the newest checkpoint in `folder`; "auto" does if there is one; otherwise start from the
            recipe's weights files.
        load_data: False leaves out the loader, for a run that makes its own batches.

    Raises:
        InputError: something that the recipe names is missing or does not fit.
    """
    accelerator = _build_accelerator(recipe, device)
    check_same_recipe(recipe)
    resume = agree_on_resume(folder, resume)
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
    arithmetic = _choose_arithmetic(recipe, accelerator.device)
    with arithmetic.use():  # compiled code is for one arithmetic
        is_compiled = _compile_networks(recipe, method, accelerator, memory_format)
    optimizers = _prepare_networks(recipe, method, accelerator, is_compiled=is_compiled)
    check_averaging(recipe, optimizers)
    prepare_kernels(recipe, accelerator)
    state = share_from_first(lambda: _load_state(recipe, folder)) if resume else {"step": 0}
    loader = _build_loader(recipe, accelerator, state["step"]) if load_data else cast(Loader, None)
    run = TrainingRun(
        recipe,
        folder,
        accelerator,
        method,
        optimizers,
        ema,
        loader,
        memory_format,
        arithmetic,
        is_compiled=is_compiled,
        resumed=resume,
    )
    if isinstance(recipe.schedule, PlateauSpec):
        run.plateau = Plateau(recipe.schedule)
    if resume:
        _restore(run, state)
    return run


def _build_loader(recipe: Recipe, accelerator: Accelerator, start_step: int) -> Loader:
    loader = Loader(
        recipe.data.build_each(recipe.crops_px),
        batch=recipe.batch,
        seed=recipe.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        start_step=start_step,
        workers=recipe.workers,
        augment=recipe.data.augment,
    )
    loader.fill_device(accelerator.device)
    return loader


def _print_once(accelerator: Accelerator, text: str) -> None:
    """Print a line in one of all processes, in the style of the log."""
    if accelerator.is_main_process:
        print_line(text)


def _load_state(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return the newest readable checkpoint, after checking that the recipe can continue it."""
    state = load_state(folder)
    check_same_network(recipe, folder)
    step = state["step"]
    if recipe.steps < step:
        raise InputError(
            f"resume: steps must be at least {step}, the steps that the run in {folder} has done, got {recipe.steps}; "
            "raise steps, or use the weights of the run as they are."
        )
    return state


def _restore(run: TrainingRun, state: dict[str, Any]) -> None:
    try:
        run.load(state)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"resume: the checkpoint of step {state['step']} in {run.folder} must fit the recipe, got one that does "
            f"not ({describe_exception(error)}); resume with the recipe of the run: selfsr train {run.folder} --resume"
        ) from error


def _build_accelerator(recipe: Recipe, device_name: str) -> Accelerator:
    AcceleratorState._reset_state()  # a second run in one process may use another precision
    device = choose_device(device_name)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=_MIXED_PRECISION[choose_precision(recipe.precision, device)],
        kwargs_handlers=[_describe_ddp(recipe), InitProcessGroupKwargs(init_method=choose_init_method())],
    )
    world = accelerator.num_processes
    if recipe.batch % (world * recipe.accumulate):
        raise InputError(
            f"recipe: batch must be a multiple of processes x accumulate = {world} x {recipe.accumulate}, "
            f"got {recipe.batch}; change batch or accumulate."
        )
    return accelerator


def _describe_ddp(recipe: Recipe) -> DistributedDataParallelKwargs:
    """Return the arguments of DDP."""
    arguments: dict[str, Any] = {
        # Branches of unused scales get no gradient; DDP must know.
        "find_unused_parameters": recipe.network.has_unused_parameters,
        "gradient_as_bucket_view": True,  # one copy of the gradients less
    }
    # Buffers need no copy from process to process: they start equal and stay equal, since batch norm's statistics cover
    # all processes. A copy before a pass would overwrite buffers that an earlier pass, of which a discriminator has
    # two, still needs for its gradient.
    if "forward_sync_buffers" not in signature(DistributedDataParallel.__init__).parameters:
        return DistributedDataParallelKwargs(**arguments, broadcast_buffers=False)
    described = DistributedDataParallelKwargs()
    # accelerate accepts no subclass, and has only the name that torch 2.14 deprecates.
    described.to_kwargs = lambda: {**arguments, "forward_sync_buffers": False}
    return described


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
        for name, path in recipe.method.other_starts.items():
            _print_once(accelerator, f"{name}: {load_into(method.nets[name], path)}")
    return method


def _compile_networks(
    recipe: Recipe, method: Method, accelerator: Accelerator, memory_format: torch.memory_format
) -> bool:
    """Bring the method's networks into the memory layout and training mode; return whether they are compiled."""
    for name, net in method.nets.items():
        method.nets[name] = net.to(memory_format=memory_format).train()  # pyright: ignore[reportCallIssue]
    if recipe.compile == "off":
        return False
    images = recipe.batch // (accelerator.num_processes * recipe.accumulate)

    def make_sample(side_px: int) -> Tensor:
        sample = torch.full((images, recipe.data.channels, side_px, side_px), 0.5, device=accelerator.device)
        return sample.contiguous(memory_format=memory_format)

    samples = {
        name: {
            scale: make_sample(crop_px // scale if name == GENERATOR else crop_px)
            for scale, crop_px in recipe.crops_px.items()
        }
        for name in method.nets
    }
    nets, autocast = dict(method.nets.items()), lambda: accelerator.autocast()
    return compile_networks(nets, samples, recipe.compile, autocast)


def _prepare_networks(recipe: Recipe, method: Method, accelerator: Accelerator, *, is_compiled: bool) -> dict[str, Any]:
    """Wrap the method's networks for mixed precision and several processes; return their optimizers by name."""
    optimizers = {}
    for name, net in method.nets.items():
        if accelerator.num_processes > 1:
            normalize_over_processes(net)
        dtype = _CAST_TYPES.get(accelerator.mixed_precision)
        # A compiled network fuses its casts. DDP must see which parameters a pass has left out; a cast of many together
        # hides it. A network on a frozen base has parts with precisions of their own, and recomputes some in the
        # backward pass, when casts of the forward pass are gone.
        casts_itself = is_compiled or recipe.network.has_unused_parameters or isinstance(net, PartlyFrozen)
        if dtype is not None and not casts_itself:
            cast_weights_together(net, dtype)
        spec = recipe.optimizers[name]
        if isinstance(spec, ImportedSpec):
            check_exact_resume(spec)
        optimizer = build_optimizer(net, spec, f"optimizers.{name}.groups")
        optimizer = fuse_optimizer(optimizer, accelerator.device)
        method.nets[name], optimizers[name] = accelerator.prepare(net, optimizer)
    return optimizers


def _ema_forward(net: nn.Module, accelerator: Accelerator) -> Callable[[Tensor], Tensor]:
    def forward(lr: Tensor) -> Tensor:
        with torch.no_grad(), accelerator.autocast():
            return net(lr).float()

    return forward


def _choose_arithmetic(recipe: Recipe, device: torch.device) -> Arithmetic:
    return Arithmetic(
        tf32=_TF32[choose_precision(recipe.precision, device)],
        deterministic=recipe.deterministic,
        # Crops have fixed sizes, but of a network that samples only some outputs are decoded, other ones in each step.
        benchmark=not recipe.method.trains_sampled,
    )


def _memory_format(recipe: Recipe, device: torch.device) -> torch.memory_format:
    if recipe.memory_format == "auto":
        faster = recipe.network.convolutional and device.type in ("cpu", "cuda")
        return torch.channels_last if faster else torch.contiguous_format
    return torch.channels_last if recipe.memory_format == "channels_last" else torch.contiguous_format
