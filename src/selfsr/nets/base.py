"""What every network of a recipe states: its options, where it works, and how to build it."""

from typing import ClassVar

from torch import nn

from selfsr._checks import InputError
from selfsr.spec import Spec


class NetworkSpec(Spec):
    """A generator as a recipe spells it out; subclasses add `kind`, the options and `_make`.

    Attributes:
        title: how people call the network.
        paper: where it was published.
        convolutional: built of convolutions alone, so that the channels-last layout pays.
        parameters: how many numbers are trained by default options for RGB at x4.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    convolutional: ClassVar[bool]
    parameters: ClassVar[int]

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales that the network can be built for with these options."""
        return (2, 3, 4, 8)

    @property
    def colours(self) -> tuple[int, ...]:
        """The numbers of channels that it can be built for: 1 is grey, 3 is RGB."""
        return (1, 3)

    @property
    def minimum_px(self) -> int:
        """The smallest side of a low-resolution crop, in pixels, that the network takes."""
        return 1

    @property
    def minimum_batch(self) -> int:
        """The fewest images that a training step may hand to the network at once."""
        return 1

    def build(self, scale: int, channels: int = 3) -> nn.Module:
        """Build the network, initialised as its authors do and ready to be trained.

        Args:
            scale: upscaling factor, one of `scales`.
            channels: 1 for grey or 3 for RGB.

        Returns:
            A module in training mode that takes float `[N, channels, h, w]` in [0, 1] to
            `[N, channels, scale * h, scale * w]`, not clamped, and whose last layer computes in float32 under
            autocast.

        Raises:
            InputError: the network cannot be built for this scale or number of channels.
        """
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            raise InputError(f"network {self.title}: scale must be one of {known} with these options, got {scale}.")
        if channels not in self.colours:
            known = " or ".join(map(str, self.colours))
            raise InputError(f"network {self.title}: channels must be {known} with these options, got {channels}.")
        return self._make(scale, channels)

    def _make(self, scale: int, channels: int) -> nn.Module:
        raise NotImplementedError
