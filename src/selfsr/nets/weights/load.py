"""Load weights files: open any model, or start a network from any file that fits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets import key_names
from selfsr.nets.base import NETWORK_ENTRY, Detected, NetworkTooLargeError
from selfsr.nets.diffusion.adapters import find_adapters
from selfsr.nets.spandrel.adapted import read_traits, run_as_spandrel
from selfsr.nets.weights.detect import (
    describe_file,
    describe_net,
    detect_network,
    detect_with_spandrel,
    format_options,
    format_scales,
    is_derived,
    limit_parameters,
    resembles,
    tensors_fit,
)
from selfsr.nets.weights.model import Model
from selfsr.nets.weights.read import WeightsFile, read_weights

# Which tensors of a file must fit a network, see `load_into`.
Fit = Literal["all", "tail", "matching"]
# How many names a message lists of each kind.
_LISTED = 3


def load_model(path: Path, scale: int | None = None) -> Model:
    """Open the model in `path`: a network of ours, or any that spandrel supports.

    Args:
        path: .safetensors, .pth, .pt or .ckpt, in any layout that `read_weights` knows, or a model folder.
        scale: the scale of a multi-scale network (SRCNN, VDSR, DRRN, MDSR), needed where the file does not state
            one. Other networks ignore it.

    Raises:
        InputError: there is no such file, no weights in it, or a network that neither we nor spandrel know; or a
            scale is missing, or is not one of the network's.
        OSError: the file cannot be read.

    Example:
        >>> import tempfile, torch
        >>> from selfsr.nets.edsr import EdsrSpec
        >>> from selfsr.nets.weights import save_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "net.safetensors"
        ...     save_weights(path, EdsrSpec(features=8, blocks=1).build(scale=2), {})
        ...     load_model(path).upscale(torch.rand(1, 3, 6, 7)).shape
        torch.Size([1, 3, 12, 14])
    """
    return open_weights(path, read_weights(path), scale)


def open_weights(path: Path, weights: WeightsFile, scale: int | None = None) -> Model:
    """Open the model in the content of a file (see `load_model`)."""
    _check_finite(path, weights.tensors)
    detected = detect_network(path, weights)
    if detected is not None:
        return _build_model(path, detected, _choose_scale(path, detected, weights.metadata, scale))
    descriptor = detect_with_spandrel(path, weights.tensors)
    size, tiling = descriptor.size_requirements, descriptor.tiling.name.lower()
    traits = read_traits(None, descriptor)
    from selfsr.nets.spandrel.attention import fuse_attention  # here, since it imports spandrel

    net = run_as_spandrel(fuse_attention(descriptor.model.float().eval()), traits, tiling)
    if any(".eval_conv." in name for name in weights.tensors):
        from selfsr.nets.spandrel.span_conv import fuse_span_convs

        fuse_span_convs(net)
    return Model(
        net=net,
        architecture=traits.architecture,
        scale=descriptor.scale,
        channels=descriptor.input_channels,
        tiling=tiling,  # pyright: ignore[reportArgumentType]
        multiple_of_px=size.multiple_of,
        minimum_px=max(1, size.minimum),
        square=size.square,
        supports_half=descriptor.supports_half and traits.half,
        supports_bfloat16=traits.half,
    )


def load_into(net: nn.Module, path: Path, *, fit: Fit = "all") -> str:
    """Load the weights in `path` into `net`: all that fit, or none.

    The file may have any layout that `read_weights` knows, and any names that `NetworkSpec.detect` knows.

    Args:
        net: a network that a `NetworkSpec` built, or any other module.
        path: the file.
        fit: which tensors must fit. "all"; "tail" leaves out those of the upsampling tail that do not, for a file of
            another scale, as the published x3 and x4 EDSR start from the x2 one; "matching" loads every tensor that
            has the name and the shape of one of the network, and needs at least one.

    Returns:
        One line that lists what was loaded, and what was left as initialized.

    Raises:
        InputError: the file does not fit `net`, which is then unchanged; the message counts what fits.
        OSError: the file cannot be read.
    """
    weights = read_weights(path)
    _check_finite(path, weights.tensors)
    adapters = None if NETWORK_ENTRY in weights.metadata else find_adapters(weights.tensors, weights.metadata)
    if adapters is not None:  # the base and its prompt are those of the network
        buffers = {name for name, _ in net.named_buffers()}
        kept = {name: tensor for name, tensor in net.state_dict().items() if name in buffers}
        tensors = {**kept, **adapters.tensors}
    else:
        detected = detect_network(path, weights)
        tensors = weights.tensors if detected is None else detected.tensors
    net_tensors, file_tensors = _rename_alike(net, tensors)
    difference = _compare(net_tensors, file_tensors)
    tail = key_names.match_upsampling_tail(net_tensors)
    only_tail = all(tail.match(name) for name in difference.all)
    is_enough = fit == "matching" and difference.fitting > 0
    if difference.all and not (is_enough or (fit == "tail" and only_tail)):
        raise _unfit(path, weights, net, difference, only_tail)
    loaded = {
        name: file_tensors[name]
        for name, tensor in net_tensors.items()
        if name in file_tensors and file_tensors[name].shape == tensor.shape
    }
    state = {**net_tensors, **loaded}
    net.load_state_dict(key_names.to_rrdb_first_names(state) if key_names.is_rrdb(net.state_dict()) else state)
    numbers = sum(tensor.numel() for name, tensor in loaded.items() if not is_derived(name))
    section = f" [{weights.section}]" if weights.section else ""
    initialized = difference.missing + difference.other_shape
    limit = _LISTED if fit == "matching" else len(initialized)  # a tail is short, and each of its layers matters
    left = f"; left as initialized: {_join_names(initialized, limit)}" if initialized else ""
    unexpected = difference.unexpected
    unused = f"; not used: {_join_names(unexpected, max(limit, _LISTED))}" if unexpected else ""
    return f"loaded {len(loaded)} tensors ({numbers:,} numbers) from {path}{section}{left}{unused}"


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a weights file, such as the recipe of its run; empty if there are none.

    Raises:
        InputError: the file is not a weights file.
        OSError: the file cannot be read.
    """
    return read_weights(path).metadata


def _choose_scale(path: Path, detected: Detected, metadata: Mapping[str, str], scale: int | None) -> int:
    if len(detected.scales) == 1:
        return detected.scales[0]
    trained = tuple(int(number) for number in re.findall(r"\d+", metadata.get("scale", "")))
    if scale is None and len(trained) == 1:
        scale = trained[0]
    title, possible = detected.spec.name, detected.scales or detected.spec.scales
    if scale is None:
        serves = detected.scales or trained
        reason = f"serves {format_scales(serves)}" if serves else "works at any scale, and the file does not state one"
        raise InputError(f"weights {path}: {title} {reason}; choose one, as with --scale {(trained or possible)[0]}.")
    if scale not in possible:
        raise InputError(
            f"weights {path}: {title} upscales by {format_scales(possible)}, got x{scale}; choose one of them."
        )
    return scale


def _build_model(path: Path, detected: Detected, scale: int) -> Model:
    spec = detected.spec
    try:
        with limit_parameters(detected.tensors):
            net = spec.build(scale, detected.channels)
    except (NetworkTooLargeError, RuntimeError, MemoryError) as error:
        raise resembles(path, f"{spec.name} with {format_options(spec)}") from error
    if not tensors_fit(detected.tensors, net):
        raise resembles(path, f"{spec.name} with {format_options(spec)}")
    net.load_state_dict({**net.state_dict(), **detected.tensors})
    return Model(
        net=net.eval(),
        architecture=spec.name,
        scale=scale,
        channels=detected.channels,
        # Of an autoencoder, and of an architecture of spandrel, only the network knows.
        tiling=getattr(net, "tiling", spec.tiling),
        multiple_of_px=getattr(net, "multiple_of_px", spec.multiple_of_px),
        minimum_px=getattr(net, "minimum_px", spec.minimum_px),
        square=False,
        supports_half=False,  # features of range 255 may exceed the range of float16
        supports_bfloat16=getattr(net, "supports_bfloat16", True),
        is_diffusion=spec.is_diffusion,
        is_sampled=spec.is_sampled,
    )


def _rename_alike(net: nn.Module, file_tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of the network and of the file under names with one meaning, for any scales."""
    net_tensors = net.state_dict()
    if not key_names.is_rrdb(net_tensors):
        return net_tensors, file_tensors
    file_tensors = key_names.to_rrdb_first_names(file_tensors)
    if key_names.is_rrdb(file_tensors):
        file_tensors = key_names.to_rrdb_published_names(file_tensors)
    return key_names.to_rrdb_published_names(net_tensors), file_tensors


@dataclass(frozen=True)
class _Difference:
    """Names of tensors: those that only the network has, that only the file has, and those of unequal shape."""

    missing: list[str]
    unexpected: list[str]
    other_shape: list[str]
    shapes: list[str]
    counted: int

    @property
    def all(self) -> list[str]:
        return self.missing + self.unexpected + self.other_shape

    @property
    def fitting(self) -> int:
        return self.counted - len(self.missing) - len(self.other_shape)


def _compare(net_tensors: Mapping[str, Tensor], file_tensors: Mapping[str, Tensor]) -> _Difference:
    needed = [name for name in net_tensors if not is_derived(name)]
    missing = [name for name in needed if name not in file_tensors]
    unexpected = [name for name in file_tensors if name not in net_tensors and not is_derived(name)]
    pairs = {name: (file_tensors[name].shape, net_tensors[name].shape) for name in needed if name in file_tensors}
    other_shape = [name for name, (ours, theirs) in pairs.items() if ours != theirs]
    shapes = [f"{name} {_format_shape(pairs[name][0])} for {_format_shape(pairs[name][1])}" for name in other_shape]
    return _Difference(missing, unexpected, other_shape, shapes, len(needed))


def _unfit(path: Path, weights: WeightsFile, net: nn.Module, difference: _Difference, only_tail: bool) -> InputError:
    return InputError(
        f"weights {path}: {difference.fitting} of {difference.counted} tensors fit the network"
        + _list_names("missing", difference.missing)
        + _list_names("not of this network", difference.unexpected)
        + _list_names("of another shape", difference.shapes)
        + f"; {_advise(path, weights, net)}"
        + (", or leave out its upsampling tail with start_fit: tail." if only_tail else ".")
    )


def _advise(path: Path, weights: WeightsFile, net: nn.Module) -> str:
    """Name the networks of the file and of the run, if they are known."""
    file_network = describe_file(path, weights)
    if file_network is None:
        return "choose the network and the options that the file was trained with"
    run_network = describe_net(path, net)
    contrast = f", the network is {run_network}" if run_network not in (None, file_network) else ""
    return f"the file contains {file_network}{contrast}: set network and scale to match it"


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        kind = "NaN" if bool(tensor.isnan().any()) else "infinity" if bool(tensor.isinf().any()) else None
        if kind == "NaN" or (kind and not is_derived(name)):  # masks may have -infinity
            raise InputError(
                f"weights {path}: expected numbers, got {kind} in {name}; "
                "use weights from before the training diverged."
            )


def _list_names(problem: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"; {len(names)} {problem}: {_join_names(names, _LISTED)}"


def _join_names(names: list[str], limit: int) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{rest}"


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
