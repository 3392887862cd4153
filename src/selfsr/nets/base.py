"""The contract of a generator: its options in a recipe, its limits, how it is built, how its file is detected."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.spec import Spec

# The entry of a weights file's metadata that states the network: its options as JSON.
NETWORK_ENTRY = "selfsr_network"


class StatedNetwork:
    """Base of the networks whose weights files state the network in their metadata."""

    def file_metadata(self) -> dict[str, str]:
        """Return the metadata of a weights file, from which `load_model` builds the same network."""
        raise NotImplementedError


class SrNetwork(StatedNetwork, nn.Module):
    """Base of the networks that are written here, as opposed to those of spandrel.

    Args:
        scale: upscaling factor. A multi-scale network upscales by the value that `set_scale` sets last.
        channels: 3 for RGB, 1 for gray.

    Attributes:
        spec: the options, as `NetworkSpec.build` sets them; None if the class was called directly.
    """

    spec: "NetworkSpec | None" = None

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__()
        self.scale: int = scale
        self.channels: int = channels

    def file_metadata(self) -> dict[str, str]:
        """Return the metadata of a weights file, from which `load_model` builds the same network."""
        if self.spec is None:
            return {}
        return make_network_metadata(self.spec, self.scale, self.channels)


def make_network_metadata(spec: "NetworkSpec", scale: int, channels: int) -> dict[str, str]:
    """Return the entries of a weights file's metadata that state its network."""
    return {NETWORK_ENTRY: spec.model_dump_json(), "scale": str(scale), "channels": str(channels)}


def set_scale(net: nn.Module, scale: int) -> None:
    """Set the scale by which a multi-scale network upscales from now on; other networks have only one."""
    if isinstance(net, SrNetwork):
        net.scale = scale


_any_size: ContextVar[bool] = ContextVar("any_size", default=False)


@contextmanager
def allow_any_size() -> Iterator[None]:
    """Build parts that come from files of their own, which say nothing about the size of a weights file."""
    token = _any_size.set(True)
    try:
        yield
    finally:
        _any_size.reset(token)


def is_any_size_allowed() -> bool:
    """Return whether parameters are now built within `allow_any_size`."""
    return _any_size.get()


class NetworkTooLargeError(ValueError):
    """A file asks for a network that is many times as large as the file."""


class NetworkSpec(Spec):
    """Base of a generator's options in a recipe. A subclass adds `kind`, the options and `_make`.

    A new network needs nothing else: files that are saved here state the network in their metadata, so `load_model`
    opens them. Only a network with weights files from elsewhere needs `detect`. Its last layer must compute in float32
    (`Float32Conv2d`, `Float32ConvTranspose2d`), see layers.py.

    Attributes:
        title: the network's name in messages.
        paper: where the network was published.
        convolutional: built only of convolutions, so that the channels-last layout is faster.
        has_branch: in training mode, the network returns two images of one shape: the output and its branch's output.
        tiling: whether an image may be cut into tiles; "discouraged" if the network depends on the complete image.
        scales_reason: why there are no other scales, as the end of a sentence; empty if this needs no reason.
        multi_scale: one network upscales by any of `scales`, by the one that `set_scale` sets.
        has_unused_parameters: a step at one scale leaves the parameters of other scales without gradient.
        is_diffusion: the network pads its input and fixes the colors of its output by itself (`DiffusionNetwork`).
        is_sampled: the network draws its output at random, so that it is trained by a method for such networks.
        has_base: the network is trained on a pretrained base, which the recipe names.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    convolutional: ClassVar[bool]
    has_branch: ClassVar[bool] = False
    tiling: ClassVar[Literal["supported", "discouraged"]] = "supported"
    scales_reason: ClassVar[str] = ""
    multi_scale: ClassVar[bool] = False
    has_unused_parameters: ClassVar[bool] = False
    is_diffusion: ClassVar[bool] = False
    is_sampled: ClassVar[bool] = False
    has_base: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name of the network in messages and lists; its title, unless the options choose an architecture."""
        return self.title

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales that the network can be built for with these options."""
        return (2, 3, 4, 8)

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """The numbers of channels that the network can be built for: 1 is gray, 3 is RGB."""
        return (1, 3)

    @property
    def minimum_px(self) -> int:
        """The smallest side of a low-resolution crop that the network accepts, in pixels."""
        return 1

    @property
    def multiple_of_px(self) -> int:
        """The multiple up to which the network pads the sides of an image; tiles start at these multiples."""
        return 1

    @property
    def minimum_batch(self) -> int:
        """The smallest batch that the network can be trained with, in images."""
        return 1

    def build(self, scale: int, channels: int = 3) -> nn.Module:
        """Build the network with its authors' initialization.

        Args:
            scale: upscaling factor, one of `scales`.
            channels: 1 for gray or 3 for RGB.

        Returns:
            A module in training mode that maps float `[N, channels, h, w]` in [0, 1] to
            `[N, channels, scale * h, scale * w]`, not clamped. Its last layer computes in float32 under autocast.
            With `has_branch`, it returns two such images in training mode.

        Raises:
            InputError: the network cannot be built for this scale or number of channels.

        Example:
            >>> import torch
            >>> from selfsr.nets.edsr import EdsrSpec
            >>> net = EdsrSpec(features=8, blocks=1).build(scale=2)
            >>> net(torch.rand(1, 3, 5, 7)).shape
            torch.Size([1, 3, 10, 14])
        """
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            reason = f", because {self.scales_reason}" if self.scales_reason else ""
            raise InputError(
                f"network {self.name}: scale must be one of {known} with these options, got {scale}{reason}."
            )
        if channels not in self.channel_counts:
            known = " or ".join(map(str, self.channel_counts))
            raise InputError(f"network {self.name}: channels must be {known} with these options, got {channels}.")
        net = self._make(scale, channels)
        if isinstance(net, SrNetwork):
            net.spec = self
        return net

    def _make(self, scale: int, channels: int) -> nn.Module:
        raise NotImplementedError

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> "Detected | None":  # noqa: ARG003 - for subclasses
        """Detect a published network of this kind by the names of its tensors.

        Only for files that were not saved here, and only for layouts that spandrel does not know.

        Args:
            tensors: all tensors of the weights file, by name.

        Returns:
            The network, or None if the names are not those of this kind.
        """
        return None


@dataclass(frozen=True)
class Detected:
    """A network that was detected in a weights file.

    Attributes:
        spec: the options with which it is built.
        scales: the scales of the file's network; empty if the tensors fit any scale.
        channels: 1 for gray, 3 for RGB.
        tensors: under the names and in the value range of the built network.
    """

    spec: NetworkSpec
    scales: tuple[int, ...]
    channels: int
    tensors: dict[str, Tensor]
