"""Weights files: open any model, start a network from any fitting file, and save what everyone can open."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets import AnyNetwork, key_names
from selfsr.nets.base import Detected, NetworkSpec
from selfsr.nets.weights.model import Model
from selfsr.nets.weights.read import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

# Constants that a network computes for itself, so a file may lack them or hold them for another crop size:
# attention masks, the counter of batch norm, SPAN's fused convolutions, the mean color.
_DERIVED = re.compile(
    r"(.*\.)?(attn_mask(_[01])?|num_batches_tracked|eval_conv\.(weight|bias))$|(sub|add)_mean\.(weight|bias)$"
)
# How many names a message lists of each kind.
_LISTED = 3


def load_model(path: Path, scale: int | None = None) -> Model:
    """Open the model in `path`: ours, or any that spandrel knows.

    Args:
        path: .safetensors, .pth, .pt or .ckpt, of any layout that `read_checkpoint` finds weights in.
        scale: what to upscale by, for the networks whose files leave it open: one for several scales (MDSR), and
            those that work on an upscaled image (SRCNN, VDSR, DRRN) where the file does not say what they were
            trained for. All others have their own, whatever this says.

    Raises:
        InputError: no such file, no weights in it, a network that neither we nor spandrel know, or a scale that is
            needed and not given, or not one of the network's.
        OSError: the file cannot be read.
    """
    checkpoint = read_checkpoint(path)
    _check_numbers(path, checkpoint.tensors)
    found = _detect(path, checkpoint)
    if found is not None:
        return _own_model(path, found, _scale(path, found, checkpoint.metadata, scale))
    descriptor = _described(path, checkpoint.tensors)
    size = descriptor.size_requirements
    return Model(
        net=descriptor.model.eval().float(),
        architecture=descriptor.architecture.id,
        scale=descriptor.scale,
        channels=descriptor.input_channels,
        tiling=descriptor.tiling.name.lower(),  # pyright: ignore[reportArgumentType]
        multiple_of_px=size.multiple_of,
        minimum_px=max(1, size.minimum),
        square=size.square,
        supports_half=descriptor.supports_half,
        supports_bfloat16=descriptor.supports_bfloat16,
    )


def load_into(net: nn.Module, path: Path, *, transfer: bool = False) -> str:
    """Load the weights in `path` into `net`, all of them or none.

    Tensors are found in bare files and under `params_ema` (preferred), `params`, `state_dict` and the like, with
    the prefixes of wrappers taken off; a network may go by the names of any layout that `detect` or RRDB has.

    Args:
        net: a network that a `NetworkSpec` built, or any other module.
        path: the file.
        transfer: the file may be of another scale: tensors of the upsampling tail that do not fit stay as
            initialized, and all others must fit. The published x3 and x4 EDSR start from the x2 one like this.

    Returns:
        One line that says what was loaded, and what was left as initialized.

    Raises:
        InputError: the file does not fit `net`, which is then unchanged; the message counts what fits.
        OSError: the file cannot be read.
    """
    checkpoint = read_checkpoint(path)
    _check_numbers(path, checkpoint.tensors)
    found = _detect(path, checkpoint)
    own, given = _under_one_layout(net, checkpoint.tensors if found is None else found.tensors)
    derived = {name for name in own if _DERIVED.match(name)}
    missing = [name for name in own if name not in given and name not in derived]
    unexpected = [name for name in given if name not in own and not _DERIVED.match(name)]
    misshapen = [name for name in own if name in given and name not in derived and given[name].shape != own[name].shape]
    unfit = missing + unexpected + misshapen
    tail = key_names.upsampling_tail(own)
    in_tail = all(tail.match(name) for name in unfit)
    if unfit and not (transfer and in_tail):
        fits = len(own) - len(derived) - len(missing) - len(misshapen)
        raise InputError(
            f"weights {path}: {fits} of {len(own) - len(derived)} tensors fit the network"
            + _listed("missing", missing)
            + _listed("not of this network", unexpected)
            + _listed("of another shape", [f"{n} {_shape(given[n])} for {_shape(own[n])}" for n in misshapen])
            + f"; {_advice(path, checkpoint.tensors, net)}"
            + (", or leave out its upsampling tail with start_transfer: true." if in_tail else ".")
        )
    taken = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    loaded = {**own, **taken}
    net.load_state_dict(key_names.rrdb_first_names(loaded) if key_names.is_rrdb(net.state_dict()) else loaded)
    numbers = sum(taken[name].numel() for name in taken if name not in derived)
    part = f" [{checkpoint.part}]" if checkpoint.part else ""
    left = f"; left as initialized: {', '.join(missing + misshapen)}" if missing or misshapen else ""
    unused = f"; not used: {', '.join(unexpected)}" if unexpected else ""
    return f"loaded {len(taken)} tensors ({numbers:,} numbers) from {path}{part}{left}{unused}"


def _under_one_layout(net: nn.Module, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors of `net` and of the file under names that mean the same in both, whatever their scales."""
    own = net.state_dict()
    if key_names.is_rrdb(own):
        given = key_names.rrdb_first_names(given)
        return key_names.rrdb_published_names(own), key_names.rrdb_published_names(given) if key_names.is_rrdb(
            given
        ) else given
    return own, given


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a weights file says of itself, such as the recipe of its run; nothing gives an empty dict.

    Raises:
        InputError: no weights file.
        OSError: the file cannot be read.
    """
    return read_checkpoint(path).metadata


def _detect(path: Path, checkpoint: Checkpoint) -> Detected | None:
    """Return which of our networks the file holds, or None."""
    for spec_type in get_args(AnyNetwork):
        try:
            found = spec_type.detect(checkpoint.tensors, checkpoint.metadata)
        except (ValueError, IndexError) as error:  # a tensor with other axes, or options that no network can have
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).splitlines()[0]
            raise _patchwork(path, f"{spec_type.title} ({first})") from error
        if found is not None:
            return found
    return None


def _scale(path: Path, found: Detected, said: Mapping[str, str], asked: int | None) -> int:
    """Choose the scale of a network that may serve several."""
    if len(found.scales) == 1:
        return found.scales[0]
    trained = tuple(int(scale) for scale in re.findall(r"\d+", said.get("scale", "")))
    if asked is None and len(trained) == 1:
        asked = trained[0]
    title, possible = found.spec.title, found.scales or found.spec.scales
    if asked is None:
        serves = found.scales or trained
        why = f"serves {_factors(serves)}" if serves else "works at any scale, and the file does not say which"
        raise InputError(f"weights {path}: {title} {why}; choose one, as with --scale {(trained or possible)[0]}.")
    if asked not in possible:
        raise InputError(f"weights {path}: {title} upscales by {_factors(possible)}, got x{asked}; choose one of them.")
    return asked


def _own_model(path: Path, found: Detected, scale: int) -> Model:
    spec, tensors = found.spec, found.tensors
    net = spec.build(scale, found.channels)
    own = net.state_dict()
    if set(tensors) - set(own) or any(
        tensors[n].shape != own[n].shape if n in tensors else not _DERIVED.match(n) for n in own
    ):
        raise _patchwork(path, f"{spec.title} with {_options(spec)}")
    net.load_state_dict({**own, **tensors})
    return Model(
        net=net.eval(),
        architecture=spec.title,
        scale=scale,
        channels=found.channels,
        tiling=spec.tiling,
        multiple_of_px=spec.multiple_of_px,
        minimum_px=spec.minimum_px,
        square=False,
        supports_half=False,  # features of a picture of range 255 may leave the range of float16
        supports_bfloat16=True,
    )


def _patchwork(path: Path, what: str) -> InputError:
    return InputError(
        f"weights {path}: the names are those of {what}, but the tensors do not make up one; "
        "use the file with the program that wrote it."
    )


def _described(path: Path, tensors: dict[str, Tensor]) -> "ImageModelDescriptor[nn.Module]":
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    from selfsr.nets.spandrel.fixes import expected_warnings

    try:
        with expected_warnings():
            descriptor = ModelLoader().load_from_state_dict(dict(tensors))
    except UnsupportedModelError as error:
        some = ", ".join(list(tensors)[:_LISTED])
        raise InputError(
            f"weights {path}: expected a network that selfsr or spandrel knows, got {len(tensors)} tensors named "
            f"{some}, ...{_discriminator(tensors)}; convert the file with the program that wrote it."
        ) from error
    except (RuntimeError, KeyError, ValueError, AssertionError, IndexError, TypeError, AttributeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"weights {path}: the tensors resemble a known network but do not make up one ({first}); "
            "use the file with the program that wrote it."
        ) from error
    if not isinstance(descriptor, ImageModelDescriptor):
        raise InputError(
            f"weights {path}: expected a network from image to image, got {descriptor.architecture.id}, which needs "
            "a mask besides; use another model."
        )
    return descriptor


def _discriminator(tensors: Mapping[str, Tensor]) -> str:
    roles = {"conv0_0.weight", "linear1.weight"}
    discriminator = roles <= set(tensors) or any(name.endswith(".weight_orig") for name in tensors)
    return " (they look like a discriminator: give the generator, net_g)" if discriminator else ""


def _advice(path: Path, tensors: dict[str, Tensor], net: nn.Module) -> str:
    """Say what the file holds and what the network is, where that can be told."""
    given = _called(path, tensors)
    if given is None:
        return "choose the network and the options that the file was trained with"
    wanted = _called(path, dict(net.state_dict()))
    but = f", the network is {wanted}" if wanted not in (None, given) else ""
    return f"the file holds {given}{but}: set network and scale to match it"


def _called(path: Path, tensors: dict[str, Tensor]) -> str | None:
    """Return the name of the network that the tensors make up, its scale and its options, or None."""
    try:
        found = _detect(path, Checkpoint(tensors, {}, ""))
        if found is not None:
            scales = f" {_factors(found.scales)}" if found.scales else ""
            colors = "gray" if found.channels == 1 else "color"
            return f"{found.spec.title}{scales} with {_options(found.spec)} for {colors}"
        descriptor = _described(path, tensors)
    except InputError:
        return None
    return f"{descriptor.architecture.id} x{descriptor.scale} ({', '.join(descriptor.tags)})"


def _factors(scales: tuple[int, ...]) -> str:
    return " and ".join(filter(None, (", ".join(f"x{s}" for s in scales[:-1]), f"x{scales[-1]}")))


def _options(spec: NetworkSpec) -> str:
    """Spell out the options as a recipe has them."""
    options = spec.model_dump(mode="json", exclude={"kind"})
    return ", ".join(f"{name} {value}" for name, value in options.items() if not isinstance(value, bool))


def _check_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if bool(tensor.isnan().any()):
            raise InputError(
                f"weights {path}: expected numbers, got NaN in {name}; take weights from before the training diverged."
            )


def _listed(what: str, found: list[str]) -> str:
    if not found:
        return ""
    rest = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"; {len(found)} {what}: {', '.join(found[:_LISTED])}{rest}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
