"""Optimizers that average the weights themselves, and the proof that an imported optimizer resumes exactly."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from selfsr.errors import InputError, describe_exception
from selfsr.recipe.optim import ImportedSpec, Optimizer
from selfsr.recipe.schema import Recipe
from selfsr.step import GENERATOR
from selfsr.training.parameters import BASE_LR

# Parameters of the trial of an imported optimizer: a convolution with its bias, and a matrix.
_TRIAL_SHAPES = ((8, 4, 3, 3), (8,), (6, 5))
_TRIAL_STEPS = 2


def averages_weights(optimizer: Any) -> bool:
    """Return whether an optimizer averages the weights, as schedule-free ones do, which have `eval()`."""
    return callable(getattr(_unwrap(optimizer), "eval", None))


@contextlib.contextmanager
def averaged_weights(optimizer: Any) -> Iterator[None]:
    """Put the averaged weights into the network of an optimizer, and afterwards exactly those of training.

    `train()` of these optimizers computes the weights of training from the averaged ones, with rounding. They are
    copied instead, so that a run does not depend on how often it is evaluated or saved.
    """
    if not averages_weights(optimizer):
        yield
        return
    inner = _unwrap(optimizer)
    parameters = [parameter for group in inner.param_groups for parameter in group["params"]]
    trained = [parameter.detach().clone() for parameter in parameters]
    inner.eval()
    try:
        yield
    finally:
        inner.train()
        with torch.no_grad():
            for parameter, values in zip(parameters, trained, strict=True):
                parameter.copy_(values)


def check_averaging(recipe: Recipe, optimizers: dict[str, Any]) -> None:
    """Check that nothing works against an optimizer that averages the weights itself.

    Raises:
        InputError: the recipe also has an EMA, or a learning rate that falls.
    """
    for name in (name for name, optimizer in optimizers.items() if averages_weights(optimizer)):
        kind = recipe.optimizers[name].kind
        if name == GENERATOR and recipe.ema_decay is not None:
            raise InputError(
                f"ema_decay: expected null with optimizers.{name}.kind {kind}, which averages the weights itself, got "
                f"{recipe.ema_decay}; set it to null."
            )
        if recipe.schedule.kind != "constant":
            raise InputError(
                f"schedule.kind: expected constant with optimizers.{name}.kind {kind}, whose average replaces a "
                f"falling rate, got {recipe.schedule.kind}; set it to constant, with warmup_steps if you like."
            )


def read_group_options(spec: Optimizer, group: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a parameter group that the recipe sets; a resumed run takes them from its recipe."""
    names = {BASE_LR, *type(spec).model_fields, *(spec.options if isinstance(spec, ImportedSpec) else ())}
    return {key: value for key, value in group.items() if key in names}


def check_exact_resume(spec: ImportedSpec) -> None:
    """Check on a few numbers that an imported optimizer, restored from a checkpoint, continues bit for bit.

    Raises:
        InputError: it does not, or it cannot take a step as the training loop does.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            same = _try_resume(spec)
    except InputError:
        raise
    except Exception as error:  # the code of other people
        reason = describe_exception(error)
        raise InputError(
            f"optimizers: {spec.path} must take steps without a closure and resume from plain values, got one that "
            f"fails ({reason}); choose another class or other options."
        ) from error
    if not same:
        raise InputError(
            f"optimizers: {spec.path} must continue exactly from a checkpoint, got other weights after a resume; "
            "choose another class, or other options."
        )


def _try_resume(spec: ImportedSpec) -> bool:
    generator = torch.Generator().manual_seed(0)
    straight = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in _TRIAL_SHAPES]
    gradients = [[torch.randn(shape, generator=generator) for shape in _TRIAL_SHAPES] for _ in range(_TRIAL_STEPS + 1)]
    optimizer = spec.build([{"params": straight, "lr": spec.lr}])
    for step in range(_TRIAL_STEPS):
        _step(optimizer, straight, gradients[step], step)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = [nn.Parameter(parameter.detach().clone()) for parameter in straight]
    restored = spec.build([{"params": resumed, "lr": spec.lr}])
    restored.load_state_dict(torch.load(file, weights_only=True))
    _step(optimizer, straight, gradients[-1], _TRIAL_STEPS)
    _step(restored, resumed, gradients[-1], _TRIAL_STEPS)
    return all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def _step(optimizer: Any, parameters: list[nn.Parameter], gradients: list[torch.Tensor], seed: int) -> None:
    torch.manual_seed(seed)  # as the training loop does in each step
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def _unwrap(optimizer: Any) -> Any:
    """Return the optimizer inside of accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)
