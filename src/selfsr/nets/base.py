"""What every network of a recipe states: its options, where it works, how to build it and how to know it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.spec import Spec


class SrNetwork(nn.Module):
    """A network that is written here, as opposed to those that spandrel brings.

    Args:
        scale: upscaling factor; one that serves several upscales by what `set_scale` says last.
        channels: 3 for RGB, 1 for gray.
    """

    def __init__(self, scale: int, channels: int) -> None:
        super().__init__()
        self.scale, self.channels = scale, channels

    def file_metadata(self) -> dict[str, str]:
        """Return what a weights file must say of the network because its tensors do not show it."""
        return {}


def set_scale(net: nn.Module, scale: int) -> None:
    """Tell a network that serves several scales by which one it upscales from now on; nothing to all others."""
    if isinstance(net, SrNetwork):
        net.scale = scale


class NetworkSpec(Spec):
    """A generator as a recipe spells it out; subclasses add `kind`, the options and `_make`.

    Attributes:
        title: how people call the network.
        paper: where it was published.
        convolutional: built of convolutions alone, so that the channels-last layout pays.
        parameters: how many numbers are trained by default options at x4, for RGB where the network takes it.
        has_branch: in training the network returns two images of one shape, the output and that of its branch.
        tiling: whether an image may be cut into tiles; "discouraged" where the network sees all of it at once.
        why_scales: why there are no other scales, as the end of a sentence; empty where it needs no reason.
        serves_several: one network upscales by any of `scales`, by the one that `set_scale` tells it.
        idle_parts: such a network has parts of its own for each scale, which are idle at the others.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    convolutional: ClassVar[bool]
    parameters: ClassVar[int]
    has_branch: ClassVar[bool] = False
    tiling: ClassVar[Literal["supported", "discouraged"]] = "supported"
    why_scales: ClassVar[str] = ""
    serves_several: ClassVar[bool] = False
    idle_parts: ClassVar[bool] = False

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales that the network can be built for with these options."""
        return (2, 3, 4, 8)

    @property
    def colors(self) -> tuple[int, ...]:
        """The numbers of channels that it can be built for: 1 is gray, 3 is RGB."""
        return (1, 3)

    @property
    def minimum_px(self) -> int:
        """The smallest side of a low-resolution crop, in pixels, that the network takes."""
        return 1

    @property
    def multiple_of_px(self) -> int:
        """What the network mirrors the sides of an image up to, so that tiles keep in step with its grid."""
        return 1

    @property
    def minimum_batch(self) -> int:
        """The fewest images that a training step may hand to the network at once."""
        return 1

    def build(self, scale: int, channels: int = 3) -> nn.Module:
        """Build the network, initialized as its authors do and ready to be trained.

        Args:
            scale: upscaling factor, one of `scales`.
            channels: 1 for gray or 3 for RGB.

        Returns:
            A module in training mode that takes float `[N, channels, h, w]` in [0, 1] to
            `[N, channels, scale * h, scale * w]`, not clamped, and whose last layer computes in float32 under
            autocast; with `has_branch`, to two of them as long as it is in training mode.

        Raises:
            InputError: the network cannot be built for this scale or number of channels.
        """
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            why = f", because {self.why_scales}" if self.why_scales else ""
            raise InputError(
                f"network {self.title}: scale must be one of {known} with these options, got {scale}{why}."
            )
        if channels not in self.colors:
            known = " or ".join(map(str, self.colors))
            raise InputError(f"network {self.title}: channels must be {known} with these options, got {channels}.")
        return self._make(scale, channels)

    def _make(self, scale: int, channels: int) -> nn.Module:
        raise NotImplementedError

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> "Detected | None":  # noqa: ARG003
        """Return the network that the tensors of a weights file make up, or None if it is not of this kind.

        Networks that spandrel knows leave this to spandrel.

        Args:
            tensors: what the file holds, by name.
            said: the file's metadata.
        """
        return None


@dataclass(frozen=True)
class Detected:
    """A network that was known by the names of its tensors.

    Attributes:
        spec: builds it.
        scales: what it can upscale by; empty where the tensors serve any scale and the file does not say which.
        channels: 1 for gray, 3 for RGB.
        tensors: under the names and in the value range that the built network has.
    """

    spec: NetworkSpec
    scales: tuple[int, ...]
    channels: int
    tensors: dict[str, Tensor]
