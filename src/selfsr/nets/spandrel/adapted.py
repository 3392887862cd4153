"""Adapt spandrel's networks, which are written for inference, to training.

The class of the network is replaced by one with the same tensors and this forward pass: the input is copied, because
some networks change it in place; padded by reflection to the sides that the network accepts; and run by the function
with which spandrel runs the network, which adds a noise map or chooses one of several outputs. Networks that compute
in no half precision run in float32. In evaluation, noise that a network draws is always the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from selfsr.nets.base import NetworkSpec, StatedNetwork, make_network_metadata
from selfsr.nets.layers import pad_reflect
from selfsr.nets.spandrel.precision import compute_in_float32

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

# Networks that add noise to their input and choose a style at random.
_NOISY = {"AuraSR"}
# The seed of this noise in evaluation.
NOISE_SEED: int = 0
# The networks that compute one image at a time: IPT and DRUNet always, SeemoRe's choice of experts in evaluation, and
# those with noise, so that it does not depend on the batch.
_SINGLE_ALWAYS, _SINGLE_IN_EVALUATION = {"IPT", "DRUNet"}, {"SeemoRe", *_NOISY}
# Networks whose own gradient functions need one dtype.
_FULL_PRECISION = {"KBNet"}
# A side on which the layers are followed once; at least the smallest of the network.
_PROBE_PX = 16


@dataclass(frozen=True)
class Traits:
    """How spandrel runs a network.

    Attributes:
        spec: the options with which it is built; None if it was opened from a file that does not state them.
        scale: upscaling factor.
        channels: channels of the input and the output.
        architecture: spandrel's name.
        minimum_px: smallest side of the input, in pixels.
        multiple_of_px: sides of the input are multiples of this.
        square: both sides of the input are equal.
        half: the network can compute in bfloat16.
        call: runs the network on `[N, channels, h, w]`.
    """

    spec: NetworkSpec | None
    scale: int
    channels: int
    architecture: str
    minimum_px: int
    multiple_of_px: int
    square: bool
    half: bool
    call: Callable[[Any, Tensor], Tensor]

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides to which an input is padded, in pixels."""
        sides = [
            -(-max(side, self.minimum_px) // self.multiple_of_px) * self.multiple_of_px for side in (height, width)
        ]
        return (max(sides), max(sides)) if self.square else (sides[0], sides[1])


def read_traits(spec: NetworkSpec | None, descriptor: "ImageModelDescriptor[nn.Module]") -> Traits:
    """Return how spandrel runs the network that it has detected."""
    size = descriptor.size_requirements
    return Traits(
        spec=spec,
        scale=descriptor.scale,
        channels=descriptor.input_channels,
        architecture=descriptor.architecture.id,
        minimum_px=max(1, size.minimum),
        multiple_of_px=size.multiple_of,
        square=size.square,
        half=descriptor.supports_bfloat16 and descriptor.architecture.id not in _FULL_PRECISION,
        call=cast("Callable[[Any, Tensor], Tensor]", descriptor._call_fn),
    )


class _Adapted(StatedNetwork, nn.Module):
    """The forward pass and the metadata of an adapted network; `adapt` puts it before spandrel's class."""

    traits: Traits
    minimum_px: int
    multiple_of_px: int
    tiling: str
    supports_bfloat16: bool

    def file_metadata(self) -> dict[str, str]:
        """Return the metadata of a weights file, from which `load_model` builds the same network."""
        if self.traits.spec is None:
            return {}
        return make_network_metadata(self.traits.spec, self.traits.scale, self.traits.channels)

    def forward(self, lr: Tensor) -> Tensor:
        """Map `[N, channels, h, w]` in [0, 1] to `[N, channels, scale * h, scale * w]`."""
        traits = self.traits
        height, width = lr.shape[-2:]
        padded = pad_reflect(lr, *traits.padded_size(height, width))
        # A copy for networks that change their input in place.
        padded = padded.clone() if padded is lr else padded
        batches = padded.split(1) if self._is_single() else (padded,)
        with torch.autocast(lr.device.type, enabled=traits.half and torch.is_autocast_enabled(lr.device.type)):
            run = _Original(self)
            outputs = []
            for batch in batches:
                with self._fix_noise(lr.device):
                    outputs.append(traits.call(run, batch if traits.half else batch.float()))
        return torch.cat(outputs)[..., : height * traits.scale, : width * traits.scale]

    @property
    def draws_noise(self) -> bool:
        """Whether the output depends on noise that the network draws."""
        return self.traits.architecture in _NOISY

    @contextmanager
    def _fix_noise(self, device: torch.device) -> Iterator[None]:
        """Draw the same noise for each image in evaluation; in training another one each time."""
        if self.training or not self.draws_noise:
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(NOISE_SEED)
            yield

    def _is_single(self) -> bool:
        """Return whether the network computes one image at a time; FDnCNN gets one map of the noise."""
        architecture = self.traits.architecture
        return (
            architecture in _SINGLE_ALWAYS
            or (architecture in _SINGLE_IN_EVALUATION and not self.training)
            or getattr(self, "mode", "") == "FDnCNN"
        )


class _Original(nn.Module):
    """The network as its own class runs it, with all of its attributes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_net", net)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_net"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        net = object.__getattribute__(self, "_net")
        return super(_Adapted, net).forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


def run_as_spandrel(net: nn.Module, traits: Traits, tiling: str) -> nn.Module:
    """Give a network the forward pass of this file, in place, and nothing else.

    Args:
        net: as its class builds it.
        traits: how spandrel runs it.
        tiling: "supported", "discouraged" or "internal".
    """
    original = type(net)
    net.__class__ = type(original.__name__, (_Adapted, original), {"__module__": original.__module__})
    adapted = cast("_Adapted", net)
    adapted.traits, adapted.tiling, adapted.supports_bfloat16 = traits, tiling, traits.half
    adapted.minimum_px, adapted.multiple_of_px = traits.minimum_px, traits.multiple_of_px
    return net


def adapt(net: nn.Module, traits: Traits, tiling: str) -> nn.Module:
    """Prepare a network of spandrel's for training, in place.

    Besides the forward pass (see above): the convolution that computes the output stays in float32 under autocast,
    and parameters that no output depends on are not trained, so that several processes do not wait for their
    gradients.

    Args:
        net: as its class builds it.
        traits: how spandrel runs it.
        tiling: "supported", "discouraged" or "internal".
    """
    run_as_spandrel(net, traits, tiling)
    if next(net.parameters()).device.type == "meta":
        return net.train()
    _train_mean_shifts(net, trained=False)
    for conv in reversed(_follow_layers(net, traits)):
        compute_in_float32(conv)
        if any(parameter.requires_grad for parameter in conv.parameters()):
            break  # otherwise it only adds the mean color, and the output comes from the layer before
    return net.train()


def compute_every_expert(net: nn.Module) -> nn.Module:
    """Let SeemoRe compute all experts, with weight 0 for those that an image does not choose, in place.

    The output is the same. A trace of the evaluation would contain the experts that its image chose.
    """
    for module in net.modules():
        if type(module).__name__ == "MoELayer":
            module.train()
    return net


def replace_span_convs(net: nn.Module) -> None:
    """Replace SPAN's convolutions by ones that can be trained, see span_conv.py."""
    from spandrel.architectures.SPAN.__arch.span import Conv3XC

    from selfsr.nets.spandrel.span_conv import TrainableConv3XC

    for name, module in list(net.named_modules()):
        if type(module) is Conv3XC:
            net.set_submodule(name, TrainableConv3XC(module.sk.in_channels, module.sk.out_channels, gain1=2))


def _train_mean_shifts(net: nn.Module, *, trained: bool) -> None:
    """Keep the mean colors of networks derived from EDSR; their classes mark the module instead of its tensors."""
    for name, module in net.named_modules():
        if name.split(".")[-1] in ("sub_mean", "add_mean"):
            module.requires_grad_(trained)


def _follow_layers(net: nn.Module, traits: Traits) -> list[nn.Module]:
    """Run forward and backward once; return the convolutions in their order.

    Parameters without a gradient are not trained from now on. Nothing else of the network changes: buffers are
    restored, and so is the random generator.
    """
    convs: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, _inputs, _output: convs.append(module))
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.inference_mode(False):
        side = max(_PROBE_PX, traits.minimum_px)
        net.train()
        net(torch.rand(2, traits.channels, side, side)).square().mean().backward()
    for handle in handles:
        handle.remove()
    for name, buffer in net.named_buffers():
        buffer.copy_(buffers[name])
    for parameter in net.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None
    return convs
