"""The two losses in the form that the registries of BasicSR, traiNNer-redux and neosr expect.

All three build a loss from the options of its block in their configuration and call it with the output and the ground
truth, float `[N, C, H, W]` in [0, 1]. They have no clock, so the self-paced loss counts its calls.
"""

import importlib
import inspect
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from torch import Tensor, nn

from selfsr import InputError, SelfPacedLoss, SelfSimilarityLoss
from selfsr.errors import describe_value, suggest
from selfsr.pacing.contract import STEPS_PER_EPOCH
from selfsr.selfsim.contract import LOSS_WEIGHT

# Options of the modules that a trainer cannot use: it needs a scalar, and has no CUDA graphs.
_LEFT_OUT = {"reduction", "max_pixels"}


class LossAdapter(nn.Module):
    """A loss of this project with a weight, for a registry.

    Args:
        name: the name in the registry, for messages.
        loss_weight: factor of the loss.
        build: makes the loss from the remaining options.
        options: the remaining options of the block.

    Attributes:
        loss_weight: the factor. A trainer that multiplies by it itself reads it here.
        applies_weight: whether the returned value is multiplied by the factor.

    Raises:
        InputError: an option is unknown or wrong.
    """

    applies_weight: ClassVar[bool] = True

    def __init__(self, name: str, loss_weight: float, build: Callable[..., nn.Module], options: dict[str, Any]) -> None:
        super().__init__()
        known = set(inspect.signature(build).parameters) - _LEFT_OUT
        _check_options(name, options, {*known, *inspect.signature(type(self)).parameters} - {"options"})
        self.loss_weight: float = float(loss_weight)
        self.loss: nn.Module = build(**options)

    def _weigh(self, value: Tensor) -> Tensor:
        return value * self.loss_weight if self.applies_weight else value


class SelfSimilarityAdapter(LossAdapter):
    """`SelfSimilarityLoss` for a registry.

    Args:
        loss_weight: factor of the loss; the default is that of recipes.
        options: options of `SelfSimilarityLoss`, with its names and defaults.

    Raises:
        InputError: an option is unknown.

    Example:
        >>> import torch
        >>> loss = SelfSimilarityAdapter(loss_weight=1000.0, search_px=9, window_px=5)
        >>> sr, hr = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(loss(sr, hr), 1000 * loss.loss(sr, hr))
        True
    """

    def __init__(self, loss_weight: float = LOSS_WEIGHT, **options: Any) -> None:
        super().__init__("SelfSimilarityLoss", loss_weight, SelfSimilarityLoss, options)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss at the edges of `hr`, a scalar; both are float `[N, C, H, W]` in [0, 1]."""
        return self._weigh(self.loss(sr, hr))


class SelfPacedAdapter(LossAdapter):
    """`SelfPacedLoss` for a registry, in place of its pixel loss.

    The age of training is `step / steps_per_epoch`, where a step is a call for a gradient. A trainer that accumulates
    gradients calls once for each micro-batch.

    Args:
        loss_weight: factor of the loss.
        steps_per_epoch: calls that are an epoch, the unit of the age; as `steps_per_epoch` of a recipe.
        start_step: calls that were done before. Trainers do not save it: set it when a run resumes.
        options: options of `SelfPacedLoss`, with its names and defaults.

    Attributes:
        step: the number of calls so far.

    Raises:
        InputError: an option is unknown or wrong.

    Example:
        >>> import torch
        >>> loss = SelfPacedAdapter(steps_per_epoch=10, start_step=19)
        >>> sr, hr = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(loss(sr.requires_grad_(), hr), SelfPacedLoss()(sr, hr, epoch=2.0))
        True
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        steps_per_epoch: int = STEPS_PER_EPOCH,
        start_step: int = 0,
        **options: Any,
    ) -> None:
        super().__init__("SelfPacedLoss", loss_weight, SelfPacedLoss, options)
        for name, value, least in (("steps_per_epoch", steps_per_epoch, 1), ("start_step", start_step, 0)):
            if not isinstance(value, int) or value < least:
                raise InputError(
                    f"SelfPacedLoss: {name} must be a whole number of at least {least}, got {describe_value(value)}; "
                    "change it."
                )
        self.steps_per_epoch: int = steps_per_epoch
        self.step: int = start_step

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss, a scalar, and count the step; both are float `[N, C, H, W]` in [0, 1]."""
        if sr.requires_grad:
            self.step += 1
        return self._weigh(self.loss(sr, hr, max(self.step, 1) / self.steps_per_epoch))


def register_losses(trainer: str, package: str, *, applies_weight: bool) -> None:
    """Register both losses, under the names `SelfSimilarityLoss` and `SelfPacedLoss`.

    Args:
        trainer: name of the trainer, for messages.
        package: name of its package.
        applies_weight: whether its losses multiply by their weight; otherwise the trainer does.

    Raises:
        InputError: the trainer cannot be imported, or has losses of these names already.
    """
    registry = import_registry(trainer, package, "LOSS_REGISTRY")
    for name, adapter in (("SelfSimilarityLoss", SelfSimilarityAdapter), ("SelfPacedLoss", SelfPacedAdapter)):
        register_class(registry, trainer, type(name, (adapter,), {"applies_weight": applies_weight}))


def import_registry(trainer: str, package: str, name: str) -> Any:
    """Return a registry of a trainer.

    Raises:
        InputError: the trainer cannot be imported or has no such registry.
    """
    try:
        return getattr(importlib.import_module(f"{package}.utils.registry"), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"selfsr.integrations: expected {trainer} with {package}.utils.registry.{name}, got an environment without "
            f"it ({error}); install {trainer}, or start Python in its folder."
        ) from error


def register_class(registry: Any, trainer: str, registered: type) -> None:
    """Add a class to a registry under its own name.

    Raises:
        InputError: the registry has another class of this name.
    """
    if registered.__name__ in registry:
        raise InputError(
            f"selfsr.integrations: expected a {trainer} without {registered.__name__}, got a registry that has it "
            "already; remove that one."
        )
    registry.register(registered)


def _check_options(caller: str, options: dict[str, Any], known: Collection[str]) -> None:
    for name in options:
        if name not in known:
            advice = suggest(name, known, f"its options are {', '.join(sorted(known))}")
            raise InputError(f"{caller}: expected options of the loss, got {describe_value(name)}{advice}")
