"""Any architecture of spandrel by its name, with the options of its class."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from selfsr.errors import InputError, shorten
from selfsr.nets.base import NetworkSpec, NetworkTooLargeError
from selfsr.nets.spandrel.adapted import adapt, read_traits, replace_span_convs
from selfsr.nets.spandrel.fixes import ignore_meshgrid_warning
from selfsr.nets.spandrel.registry import Architecture, check_options, find_architecture

# Options that change nothing in evaluation, or only the size of the constants that are computed beforehand.
TRAINING_ONLY = {
    "img_size", "input_resolution", "use_chk", "use_checkpoint", "drop", "dropout", "drop_rate", "attn_drop_rate",
    "drop_path", "drop_path_rate", "dropout_rate",
}  # fmt: skip
# What a class raises for options that contradict each other.
_CONTRADICTION = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError, ArithmeticError)
# Two networks are one if their outputs of an image in [0, 1] differ by less.
_TOLERANCE = 1e-4


class SpandrelSpec(NetworkSpec):
    """An architecture of spandrel by its name, such as ATD, with the options of spandrel's class.

    Other programs compute the options from the tensors of a weights file. An option that they would read otherwise is
    refused, so that a network that is trained here is the same there.
    """

    title: ClassVar[str] = "spandrel"
    paper: ClassVar[str] = "depends on the architecture"
    convolutional: ClassVar[bool] = False

    kind: Literal["spandrel"] = "spandrel"
    architecture: str = Field(description="name of the architecture, such as ATD or RealPLKSR, see checkpoints.md")
    options: dict[str, Any] = Field(
        default={},
        description="options of its class by spandrel's names; those that are left out keep the default of the class",
    )

    @property
    def name(self) -> str:
        """The name of the architecture."""
        return self.architecture

    @property
    def scales(self) -> tuple[int, ...]:
        """All; the class shows which it has when it is built."""
        return (1, 2, 3, 4, 8)

    @property
    def minimum_batch(self) -> int:
        """Two where a batch norm in the attention gets one value per image and channel."""
        return 2 if self.architecture == "DAT" else 1

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        check_options(find_architecture(self.architecture), self.options)
        return self

    def _make(self, scale: int, channels: int) -> nn.Module:
        arch = find_architecture(self.architecture)
        place = f"network {self.architecture}"
        arguments = arch.arguments(self.options, scale, channels)
        with _refuse_contradictions(f"{place}: expected options that form a network, got some that do not"):
            net = _construct(arch, arguments)
        if next(net.parameters()).device.type == "meta":
            return net.train()
        descriptor = _read_back(place, net)
        for what, expected, value in (
            ("scale", scale, descriptor.scale),
            ("channels", channels, descriptor.input_channels),
            ("channels of the output", channels, descriptor.output_channels),
        ):
            if expected != value:
                raise InputError(f"{place}: {what} must be {value} with these options, got {expected}; change one.")
        traits = read_traits(self, descriptor)
        tiling = descriptor.tiling.name.lower()
        with _refuse_contradictions(f"{place}: expected options that form a network, got some that do not"):
            other = adapt(descriptor.model, traits, tiling)
            net = adapt(net, traits, tiling)
        self._check_equal(place, arch, net, other)
        return net

    def _check_equal(self, place: str, arch: Architecture, net: nn.Module, other: nn.Module) -> None:
        """Check that other programs read the options that the recipe sets."""
        theirs: dict[str, Any] = other.hyperparameters  # pyright: ignore[reportAssignmentType]
        ours: dict[str, Any] = net.hyperparameters  # pyright: ignore[reportAssignmentType]
        named = [name for name in self.options if isinstance(self.options[name], bool | int | str)]
        changed = [name for name in named if name not in TRAINING_ONLY and theirs.get(name) != ours[name]]
        if not changed and _distance(net, other) <= _TOLERANCE:
            return
        changed = changed or [
            name
            for name, value in ours.items()
            if name not in TRAINING_ONLY and name in arch.options and _plain(theirs.get(name)) != _plain(value)
        ]
        wanted = ", ".join(f"{name} {theirs.get(name)}" for name in changed) or "other options"
        given = ", ".join(f"{name} {ours[name]}" for name in changed) or "these"
        raise InputError(
            f"{place}: other programs read a file of this network with {wanted}, which it does not show, got {given}; "
            "set the value that they read."
        )


@contextmanager
def _refuse_contradictions(sentence: str) -> Iterator[None]:
    """Replace the errors of a class for contradictory options by one sentence."""
    try:
        yield
    except (NetworkTooLargeError, InputError):
        raise
    except _CONTRADICTION as error:
        reason = shorten((str(error).splitlines() or [type(error).__name__])[0])
        raise InputError(f"{sentence} ({reason}); change them.") from error


def _construct(arch: Architecture, arguments: dict[str, Any]) -> nn.Module:
    """Call the class. If it needs the values of tensors, compute them also for the device "meta"."""
    from selfsr.nets.spandrel.attention import fuse_attention

    with ignore_meshgrid_warning():
        try:
            net = arch.net(**arguments)
        except RuntimeError:
            if torch.get_default_device().type != "meta":
                raise
            with torch.device("cpu"):
                net = arch.net(**arguments).to("meta")
        replace_span_convs(net)
    return fuse_attention(net)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _distance(net: nn.Module, other: nn.Module) -> float:
    """Return the largest difference of two networks' outputs in evaluation."""
    traits = net.traits
    side = max(2 * 16, traits.minimum_px)  # pyright: ignore
    image = torch.rand(1, traits.channels, side, side + 8, generator=torch.Generator().manual_seed(0))  # pyright: ignore
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = []
        for module in (net, other):
            torch.manual_seed(0)
            outputs.append(module.eval()(image))
            module.train()
    return (outputs[0] - outputs[1]).abs().max().item()


def _read_back(place: str, net: nn.Module) -> Any:
    """Return the network that spandrel builds from the tensors of a network."""
    from spandrel import ModelLoader, UnsupportedModelError

    sentence = f"{place}: expected options with which other programs recognize its files, got others"
    with ignore_meshgrid_warning(), _refuse_contradictions(sentence):
        try:
            return ModelLoader().load_from_state_dict({name: t.clone() for name, t in net.state_dict().items()})
        except UnsupportedModelError as error:
            raise InputError(f"{sentence}; use options nearer to the published ones.") from error
