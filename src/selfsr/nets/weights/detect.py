"""Detect the network of a weights file: by its metadata, by the names of its tensors, or by spandrel."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets import AnyNetwork, Network
from selfsr.nets.base import NETWORK_ENTRY, Detected, NetworkSpec, SrNetwork
from selfsr.nets.meta import build_on_meta
from selfsr.nets.weights.read import WeightsFile

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

# Constants that a network computes for itself, so a file may lack them or hold them for another crop size:
# attention masks, the counter of batch norm, SPAN's fused convolutions, the mean color.
_DERIVED = re.compile(
    r"(.*\.)?(attn_mask(_[01])?|num_batches_tracked|eval_conv\.(weight|bias))$|(sub|add)_mean\.(weight|bias)$"
)
# How many names of tensors a message lists.
_LISTED = 3


def is_derived(name: str) -> bool:
    """Return whether a network computes this tensor for itself, so that a file need not have it."""
    return _DERIVED.match(name) is not None


def tensors_fit(tensors: Mapping[str, Tensor], net: nn.Module) -> bool:
    """Return whether tensors make up the network `net`: every name and shape, except for derived constants."""
    state = net.state_dict()
    return set(tensors) <= set(state) and all(
        tensors[name].shape == tensor.shape if name in tensors else is_derived(name) for name, tensor in state.items()
    )


def detect_network(path: Path, weights: WeightsFile) -> Detected | None:
    """Return which of our networks a file holds, or None if it holds none of them.

    A file that was saved here states its network in the metadata. Other files are detected by `NetworkSpec.detect`.

    Raises:
        InputError: the metadata and the tensors contradict each other, or the tensors only resemble a network.
    """
    if NETWORK_ENTRY in weights.metadata:
        return _read_entry(path, weights)
    for spec_type in get_args(AnyNetwork):
        try:
            detected = spec_type.detect(weights.tensors)
        except (ValueError, IndexError) as error:  # a tensor with other axes, or options that no network can have
            raise resembles(path, f"{spec_type.title} ({_first_line(error)})") from error
        if detected is not None:
            return detected
    return None


def _read_entry(path: Path, weights: WeightsFile) -> Detected:
    metadata = weights.metadata
    advice = f"open it with the version that saved it, or delete the metadata entry {NETWORK_ENTRY}"
    try:
        spec = TypeAdapter[NetworkSpec](Network).validate_python(json.loads(metadata[NETWORK_ENTRY]))
        scales = tuple(int(scale) for scale in metadata["scale"].split(","))
        channels = int(metadata["channels"])
        scale = spec.scales[0] if spec.multi_scale else scales[0]
        net = build_on_meta(spec, scale, channels)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"weights {path}: expected metadata that state a network of this version with scale and channels, "
            f"got {_first_line(error).rstrip('.')}; {advice}."
        ) from error
    if spec.multi_scale:  # the tensors show the scales only if each scale has parameters of its own
        scales = spec.scales if spec.has_unused_parameters else ()
    if not tensors_fit(weights.tensors, net):
        raise InputError(
            f"weights {path}: expected the tensors of {describe_spec(spec, scales, channels)}, as the metadata state, "
            f"got {len(weights.tensors)} tensors that do not fit it; {advice}."
        )
    return Detected(spec, scales, channels, weights.tensors)


def resembles(path: Path, network: str) -> InputError:
    """Return the error for tensors with the names of a network that they do not make up."""
    return InputError(
        f"weights {path}: the names are those of {network}, but the tensors do not make up one; "
        "use the file with the program that wrote it."
    )


def detect_with_spandrel(path: Path, tensors: Mapping[str, Tensor]) -> "ImageModelDescriptor[nn.Module]":
    """Build the network of a file that spandrel knows.

    Raises:
        InputError: spandrel does not know the network, or it is not one from image to image.
    """
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    from selfsr.nets.spandrel.fixes import ignore_meshgrid_warning

    try:
        with ignore_meshgrid_warning():
            descriptor = ModelLoader().load_from_state_dict(dict(tensors))
    except UnsupportedModelError as error:
        names = ", ".join(list(tensors)[:_LISTED])
        raise InputError(
            f"weights {path}: expected a network that selfsr or spandrel knows, got {len(tensors)} tensors named "
            f"{names}, ...{_discriminator_hint(tensors)}; convert the file with the program that wrote it."
        ) from error
    except (RuntimeError, KeyError, ValueError, AssertionError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"weights {path}: the tensors resemble a known network but do not make up one ({_first_line(error)}); "
            "use the file with the program that wrote it."
        ) from error
    if not isinstance(descriptor, ImageModelDescriptor):
        raise InputError(
            f"weights {path}: expected a network from image to image, got {descriptor.architecture.id}, which also "
            "needs a mask; use another model."
        )
    return descriptor


def _discriminator_hint(tensors: Mapping[str, Tensor]) -> str:
    vgg_names = {"conv0_0.weight", "linear1.weight"}
    is_discriminator = vgg_names <= set(tensors) or any(name.endswith(".weight_orig") for name in tensors)
    return " (they look like a discriminator: give the generator, net_g)" if is_discriminator else ""


def describe_file(path: Path, weights: WeightsFile) -> str | None:
    """Return title, scale and options of the network in a file, for a message, or None if it is unknown."""
    try:
        detected = detect_network(path, weights)
        if detected is not None:
            return describe_spec(detected.spec, detected.scales, detected.channels)
        descriptor = detect_with_spandrel(path, weights.tensors)
    except InputError:
        return None
    return f"{descriptor.architecture.id} x{descriptor.scale} ({', '.join(descriptor.tags)})"


def describe_net(path: Path, net: nn.Module) -> str | None:
    """Return title, scale and options of a network, for a message, or None if it is unknown."""
    metadata = net.file_metadata() if isinstance(net, SrNetwork) else {}
    return describe_file(path, WeightsFile(dict(net.state_dict()), metadata, ""))


def describe_spec(spec: NetworkSpec, scales: tuple[int, ...], channels: int) -> str:
    """Return title, scale, options and color of a network, for a message."""
    factors = f" {format_scales(scales)}" if scales else ""
    return f"{spec.title}{factors} with {format_options(spec)} for {'gray' if channels == 1 else 'color'}"


def format_scales(scales: tuple[int, ...]) -> str:
    """Return scales as a list in words: "x2, x3 and x4"."""
    return " and ".join(filter(None, (", ".join(f"x{s}" for s in scales[:-1]), f"x{scales[-1]}")))


def format_options(spec: NetworkSpec) -> str:
    """Return the options of a network by their names in a recipe."""
    options = spec.model_dump(mode="json", exclude={"kind"})
    return ", ".join(f"{name} {value}" for name, value in options.items() if not isinstance(value, bool))


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"]
    return (str(error).splitlines() or [type(error).__name__])[0]
