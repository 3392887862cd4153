"""Find the kind and the options that a recipe has for a network of spandrel."""

from typing import TYPE_CHECKING, Any

from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.meta import build_on_meta
from selfsr.nets.spandrel.any import TRAINING_ONLY, SpandrelSpec
from selfsr.nets.spandrel.compact import CompactSpec
from selfsr.nets.spandrel.dat import DatSpec
from selfsr.nets.spandrel.hat import HatSpec
from selfsr.nets.spandrel.rcan import RcanSpec
from selfsr.nets.spandrel.realplksr import RealPlksrSpec
from selfsr.nets.spandrel.registry import Architecture, is_plain, read_architectures
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

# Our options by the options of spandrel's class, for the architectures that have a kind of their own.
_KINDS: dict[str, tuple[type[NetworkSpec], dict[str, str]]] = {
    "ESRGAN": (RrdbSpec, {"features": "num_filters", "blocks": "num_blocks", "unshuffle": "shuffle_factor"}),
    "Compact": (CompactSpec, {"features": "num_feat", "convs": "num_conv"}),
    "SPAN": (SpanSpec, {"features": "feature_channels", "subtract_mean": "norm"}),
    "RCAN": (
        RcanSpec,
        {"features": "n_feats", "groups": "n_resgroups", "blocks": "n_resblocks", "reduction": "reduction"},
    ),
    "RealPLKSR": (
        RealPlksrSpec,
        {
            "features": "dim",
            "blocks": "n_blocks",
            "kernel_px": "kernel_size",
            "split_ratio": "split_ratio",
            "attention": "use_ea",
            "layer_norm": "layer_norm",
            "dysample": "dysample",
        },
    ),
    "SwinIR": (
        SwinIrSpec,
        {
            "features": "embed_dim",
            "depths": "depths",
            "heads": "num_heads",
            "window_px": "window_size",
            "mlp_ratio": "mlp_ratio",
            "upsampler": "upsampler",
            "residual_conv": "resi_connection",
        },
    ),
    "DAT": (
        DatSpec,
        {
            "features": "embed_dim",
            "depths": "depth",
            "heads": "num_heads",
            "split_px": "split_size",
            "expansion": "expansion_factor",
            "upsampler": "upsampler",
            "residual_conv": "resi_connection",
        },
    ),
    "HAT": (
        HatSpec,
        {
            "features": "embed_dim",
            "depths": "depths",
            "heads": "num_heads",
            "window_px": "window_size",
            "compress_ratio": "compress_ratio",
            "squeeze_factor": "squeeze_factor",
            "overlap_ratio": "overlap_ratio",
            "mlp_ratio": "mlp_ratio",
        },
    ),
}


def read_spec(descriptor: "ImageModelDescriptor[nn.Module]") -> NetworkSpec | None:
    """Return the recipe network that equals the network which spandrel has detected.

    It has a kind of its own if such a kind gives the same network, else `kind: spandrel`.

    Returns:
        None if the architecture cannot be trained here.
    """
    arch = next((arch for arch in read_architectures().values() if arch.net is type(descriptor.model)), None)
    if arch is None:
        return None
    values: dict[str, Any] = descriptor.model.hyperparameters  # pyright: ignore[reportAssignmentType]
    return _read_kind(arch.name, values, descriptor.scale, descriptor.input_channels) or _read_options(
        arch, values, descriptor.input_channels
    )


def _read_kind(name: str, values: dict[str, Any], scale: int, channels: int) -> NetworkSpec | None:
    """Return a network with options of its own, if its class gets the same arguments."""
    if name not in _KINDS:
        return None
    spec_type, names = _KINDS[name]
    options = {ours: values[theirs] for ours, theirs in names.items() if values[theirs] is not None}
    try:
        spec = spec_type(**options)
        net = build_on_meta(spec, scale, channels)
    except ValueError:
        return None
    built: dict[str, Any] = net.hyperparameters  # pyright: ignore[reportAssignmentType]
    ignored = {*TRAINING_ONLY, "drop_path_rate"}
    same = all(_plain(built.get(key)) == _plain(value) for key, value in values.items() if key not in ignored)
    return spec if same else None


def _read_options(arch: Architecture, values: dict[str, Any], channels: int) -> SpandrelSpec | None:
    """Return the options of the class that differ from its defaults."""
    options = {
        name: _plain(values[name])
        for name in arch.options
        if name in values
        and name not in arch.channels
        and is_plain(values[name])
        and _plain(values[name]) != _plain(arch.default(name))
    }
    # A map of the noise is one more channel of the input.
    options |= {name: values[name] for name in arch.channels if values[name] != channels}
    try:
        return SpandrelSpec(architecture=arch.name, options=options)
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
