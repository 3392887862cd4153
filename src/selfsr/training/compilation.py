"""Compile the networks of a run with torch.compile, by blocks where these repeat, before the first step.

A network is compiled in place: its parameters, their names and its class stay, so that saving, resuming and the EMA
are as without.
"""

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selfsr.console import print_line, progress_bar
from selfsr.errors import InputError, describe_exception
from selfsr.machine.distributed import is_first_process, share_with_all
from selfsr.nets.base import set_scale
from selfsr.nets.discriminators.layers import SpectralConv2d
from selfsr.step import GENERATOR
from selfsr.training.keep_state import keep_state

CompileChoice = Literal["off", "default", "graphs"]

# CUDA graphs are recorded by the compiler, which does without them on other devices.
_OPTIONS: dict[CompileChoice, dict[str, Any]] = {
    "default": {"backend": "inductor"},
    "graphs": {"backend": "inductor", "mode": "reduce-overhead"},
}
# Blocks of one class share compiled code. Each variant, such as another width, needs one entry.
_VARIANTS = 64


def find_blocks(net: nn.Module) -> list[nn.Module]:
    """Return the largest blocks that repeat in a network: modules of one class in a sequence or a list.

    PyTorch's own layers are too small to be compiled by themselves.

    Example:
        >>> class Block(nn.Module): ...
        >>> len(find_blocks(nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Block(), nn.Conv2d(8, 3, 3))))
        2
    """
    blocks: list[nn.Module] = []
    for module in net.children():
        blocks += find_blocks(module)
    if isinstance(net, nn.Sequential | nn.ModuleList):
        repeats = Counter(type(child) for child in net if not _is_layer(child))
        largest = [child for child in net if repeats[type(child)] > 1]
        inner = {id(part) for block in largest for part in block.modules()}
        blocks = largest + [block for block in blocks if id(block) not in inner]
    return blocks


def _is_layer(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn")


def compile_networks(
    nets: Mapping[str, nn.Module],
    samples: Mapping[str, Mapping[int, Tensor]],
    choice: CompileChoice,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> bool:
    """Compile networks in place, and try each with a forward and a backward pass.

    If one does not compile in one of the processes, all of them run as they are everywhere, and the first process
    prints the reason.

    Args:
        nets: by name, in training mode, not wrapped for several processes.
        samples: for each network an input of each scale, of the sizes and on the device of the training.
        choice: not "off".
        autocast: returns the context of mixed precision.

    Returns:
        Whether they are compiled.
    """
    _allow_variants()
    failure: str | None = None
    for net in nets.values():
        _compile_in_place(net, _OPTIONS[choice])
    try:
        with _show_progress(sum(map(len, samples.values()))) as advance, _quiet():
            for name, net in nets.items():
                for scale, sample in samples[name].items():
                    set_scale(net, scale)
                    _try_pass(net, sample, autocast)
                    if name != GENERATOR:  # the generator's update passes through it, with its weights as constants
                        _try_frozen(net, sample, autocast)
                    advance()
    except InputError:
        raise
    except Exception as error:  # whatever the compiler, LLVM, a missing C++ compiler or the driver raises
        failure = _describe_failure(error)
    failures = [reason for reason in share_with_all(lambda: failure) if reason is not None]
    if not failures:
        return True
    for net in nets.values():
        _restore(net)
    if is_first_process():
        print_line(f"compile: {choice} fails here ({failures[0]}); the networks run as they are, which is slower")
    return False


def _show_progress(passes: int) -> AbstractContextManager[Callable[[], None]]:
    return progress_bar("compiling networks", passes) if is_first_process() else contextlib.nullcontext(lambda: None)


@contextlib.contextmanager
def tolerate_failures(is_compiled: bool) -> Iterator[None]:
    """Let a variant of a compiled block that first occurs in a step, and does not compile, run as it is.

    The first such variant of a process is reported in one line, instead of the compiler's traceback.
    """
    if not is_compiled:
        yield
        return
    from torch._dynamo import config

    compiler_log = logging.getLogger("torch._dynamo.convert_frame")
    compiler_log.addFilter(_report_failure)
    try:
        with config.patch(suppress_errors=True):
            yield
    finally:
        compiler_log.removeFilter(_report_failure)


_reported_failures: set[str] = set()


def _report_failure(record: logging.LogRecord) -> bool:
    """Replace the compiler's report of a block that does not compile by one line; let other records pass."""
    if record.exc_info is None or record.levelno < logging.WARNING:
        return True
    error = record.exc_info[1]
    reason = "unknown reason" if error is None else _describe_failure(error)
    if not _reported_failures:
        print_line(f"compile: a block does not compile here ({reason}); such blocks run as they are, which is slower")
    _reported_failures.add(reason)
    return False


def _describe_failure(error: BaseException) -> str:
    """Return the reason of the compiler's backend, without the advice that PyTorch adds to it."""
    return describe_exception(getattr(error, "inner_exception", None) or error)


def _compile_in_place(net: nn.Module, options: dict[str, Any]) -> None:
    """Compile the blocks of a network, or its complete forward pass if no block repeats; sizes are constants."""
    for module in net.modules():
        if isinstance(module, SpectralConv2d):
            module.__dict__["next_weight"] = torch.compiler.disable(module.next_weight)
    blocks = find_blocks(net)
    for block in blocks:
        block.compile(dynamic=False, **options)
    if not blocks:
        # An attribute of the instance, which hides the method of the class; mixed precision is wrapped around it.
        net.forward = torch.compile(net.forward, dynamic=False, **options)


def _restore(net: nn.Module) -> None:
    """Run a network as it is, after `_compile_in_place`."""
    net.__dict__.pop("forward", None)
    for module in net.modules():
        module.__dict__.pop("next_weight", None)
        module._compiled_call_impl = None
    net.zero_grad(set_to_none=True)


def _try_frozen(net: nn.Module, sample: Tensor, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    _try_pass(net, sample.clone().requires_grad_(), autocast)
    with keep_state(net, sample.device), autocast():
        net(sample)
    for parameter in trained:
        parameter.requires_grad_(True)


def _try_pass(net: nn.Module, sample: Tensor, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
    """Run forward and backward passes, which compiles both, and leave no trace of it.

    A discriminator sees outputs and ground truths before its backward pass, which fails if the second pass has
    overwritten what the gradient of the first one needs.
    """
    with keep_state(net, sample.device):
        with autocast():
            passes = [net(sample), net(sample)]
        outputs = [image for output in passes for image in (output if isinstance(output, tuple) else (output,))]
        torch.stack([image.float().sum() for image in outputs]).sum().backward()
    net.zero_grad(set_to_none=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out a warning that the compiler causes itself when it looks at the input of a block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")
        yield


def _allow_variants() -> None:
    """Raise the number of variants of one block that are compiled, before the rest would run as it is."""
    from torch._dynamo import config

    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, max(getattr(config, name), _VARIANTS))
