"""Detect the network of a weights file: by its metadata, by the names of its tensors, or by spandrel."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from selfsr.errors import InputError, shorten
from selfsr.nets import AnyNetwork, Network, key_names
from selfsr.nets.base import (
    NETWORK_ENTRY,
    Detected,
    NetworkSpec,
    NetworkTooLargeError,
    StatedNetwork,
    is_any_size_allowed,
)
from selfsr.nets.diffusion.adapters import find_adapters
from selfsr.nets.diffusion.base_folder import BaseError
from selfsr.nets.diffusion.spaces import AutoencoderError, describe_search, relocate_folders
from selfsr.nets.meta import build_on_meta
from selfsr.nets.weights.read import WeightsFile

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

# Constants that a network computes for itself, so a file may lack them or contain them for another crop size:
# attention masks, the counter of batch norm, SPAN's fused convolutions, the mean color.
_DERIVED = re.compile(
    r"(.*\.)?(attn_mask(_[01])?|num_batches_tracked|eval_conv\.(weight|bias))$|(sub|add)_mean\.(weight|bias)$"
)
# What detecting or building a network raises if the tensors contradict each other.
_CONTRADICTION = (
    ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip
# Above any number of channels, layers or recursions; no tensors show the last.
_OPTION_LIMIT = 4096
# How many names of tensors a message lists.
_LISTED = 3


def is_derived(name: str) -> bool:
    """Return whether a network computes this tensor for itself, so that a file need not have it."""
    return _DERIVED.match(name) is not None


def tensors_fit(tensors: Mapping[str, Tensor], net: nn.Module) -> bool:
    """Return whether the tensors match all names and shapes of `net`, except for derived constants."""
    state = net.state_dict()
    return set(tensors) <= set(state) and all(
        tensors[name].shape == tensor.shape if name in tensors else is_derived(name) for name, tensor in state.items()
    )


@contextmanager
def limit_parameters(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop building a network that is many times as large as its file, before it takes all time or memory.

    A number in a name, an option in the metadata or the shape of a single tensor can ask for any number of layers.

    Raises:
        NetworkTooLargeError: a network built within the context has far more parameters than `tensors`.
    """
    count_limit = 20 * len(tensors) + 1000
    numbers_limit = 20 * sum(tensor.numel() for tensor in tensors.values()) + 2**24
    thread, count, numbers = threading.get_ident(), 0, 0

    def add(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count, numbers
        if parameter is None or threading.get_ident() != thread or is_any_size_allowed():
            return
        count += 1
        numbers += parameter.numel()
        if count > count_limit or numbers > numbers_limit:
            raise NetworkTooLargeError(
                f"a network of more than {count} layers, where the file has {len(tensors)} tensors"
            )

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()


def detect_network(path: Path, weights: WeightsFile) -> Detected | None:
    """Return which of our networks a file contains, or None if it contains none of them.

    A file that was saved here states its network in the metadata. Other files are detected by `NetworkSpec.detect`.

    Raises:
        InputError: the metadata and the tensors contradict each other, or the tensors only resemble a network.
    """
    if NETWORK_ENTRY in weights.metadata:
        return _read_entry(path, weights)
    if (adapters := find_adapters(weights.tensors, weights.metadata)) is not None:
        raise InputError(
            f"weights {path}: expected a complete network, got adapters of a pretrained base in the layout of "
            f"{adapters.layout}; make a model folder of them with: selfsr export {path} -o FOLDER --base BASE, or "
            "start a training from them."
        )
    for spec_type in get_args(AnyNetwork):
        try:
            detected = spec_type.detect(weights.tensors)
        except _CONTRADICTION as error:  # a tensor with other axes, or options that no network can have
            raise resembles(path, f"{spec_type.title} ({_first_line(error)})") from error
        if detected is not None:
            return detected
    return None


def _read_entry(path: Path, weights: WeightsFile) -> Detected:
    metadata = weights.metadata
    advice = f"open it with the version that saved it, or delete the metadata entry {NETWORK_ENTRY}"
    options: dict[str, Any] = {}
    try:
        options = relocate_folders(json.loads(metadata[NETWORK_ENTRY]), path.parent)
        large = [name for name, value in options.items() if isinstance(value, int) and value > _OPTION_LIMIT]
        if large:
            raise ValueError(f"{large[0]} {options[large[0]]}")
        spec = TypeAdapter[NetworkSpec](Network).validate_python(options)
        scales = tuple(int(scale) for scale in metadata["scale"].split(","))
        channels = int(metadata["channels"])
        scale = spec.scales[0] if spec.multi_scale else scales[0]
        with limit_parameters(weights.tensors):
            net = build_on_meta(spec, scale, channels)
    except (AutoencoderError, BaseError) as error:
        raise InputError(f"weights {path}: {error}{describe_search(options)}") from error
    except _CONTRADICTION as error:
        raise InputError(
            f"weights {path}: expected metadata that state a network of this version with scale and channels, "
            f"got {_first_line(error).rstrip('.')}; {advice}."
        ) from error
    if spec.multi_scale:  # the tensors show the scales only if each scale has parameters of its own
        scales = spec.scales if spec.has_unused_parameters else ()
    tensors = key_names.to_rrdb_first_names(weights.tensors) if key_names.is_rrdb(net.state_dict()) else weights.tensors
    if not tensors_fit(tensors, net):
        raise InputError(
            f"weights {path}: expected the tensors of {describe_spec(spec, scales, channels)}, as the metadata state, "
            f"got {len(weights.tensors)} tensors that do not fit it; {advice}."
        )
    return Detected(spec, scales, channels, tensors)


def resembles(path: Path, network: str) -> InputError:
    """Return the error for tensors that have the names of a network but do not form it."""
    return InputError(
        f"weights {path}: the names are those of {network}, but the tensors do not fit it; "
        "use the file with the program that wrote it."
    )


def detect_with_spandrel(path: Path, tensors: Mapping[str, Tensor]) -> "ImageModelDescriptor[nn.Module]":
    """Build the network of a file that spandrel supports.

    Raises:
        InputError: spandrel does not know the network, or it is not one from image to image.
    """
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    from selfsr.nets.spandrel.fixes import ignore_meshgrid_warning

    try:
        with ignore_meshgrid_warning(), limit_parameters(tensors):
            descriptor = ModelLoader().load_from_state_dict(dict(tensors))
    except UnsupportedModelError as error:
        names = ", ".join(list(tensors)[:_LISTED])
        raise InputError(
            f"weights {path}: expected a network that selfsr or spandrel supports, got {len(tensors)} tensors named "
            f"{names}, ...{_discriminator_hint(tensors)}; convert the file with the program that wrote it."
        ) from error
    except _CONTRADICTION as error:
        raise InputError(
            f"weights {path}: the tensors resemble a known network but do not fit it ({_first_line(error)}); "
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
    metadata = net.file_metadata() if isinstance(net, StatedNetwork) else {}
    return describe_file(path, WeightsFile(dict(net.state_dict()), metadata, ""))


def describe_spec(spec: NetworkSpec, scales: tuple[int, ...], channels: int) -> str:
    """Return title, scale, options and color of a network, for a message."""
    factors = f" {format_scales(scales)}" if scales else ""
    return f"{spec.name}{factors} with {format_options(spec)} for {'gray' if channels == 1 else 'color'}"


def format_scales(scales: tuple[int, ...]) -> str:
    """Return scales as a list in words: "x2, x3 and x4"."""
    return " and ".join(filter(None, (", ".join(f"x{s}" for s in scales[:-1]), f"x{scales[-1]}")))


def format_options(spec: NetworkSpec) -> str:
    """Return the options of a network by their names in a recipe."""
    options = spec.model_dump(mode="json", exclude={"kind"})
    return ", ".join(f"{name} {value}" for name, value in options.items() if not isinstance(value, bool))


def _first_line(error: Exception) -> str:
    """Return what is wrong, in one line; values of the file that it names are shortened."""
    if isinstance(error, ValidationError):
        return shorten(error.errors()[0]["msg"])
    return shorten((str(error).splitlines() or [type(error).__name__])[0])
