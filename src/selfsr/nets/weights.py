"""Weights files: open any model, start a network from any fitting file, and save what everyone can open."""

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr._checks import InputError
from selfsr.data.resize import imresize
from selfsr.nets import names
from selfsr.nets.checkpoint import read_checkpoint
from selfsr.nets.edsr import Edsr

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

# Constants that a network computes for itself, so a file may lack them or hold them for another crop size:
# attention masks, the counter of batch norm, SPAN's fused convolutions, the mean colour.
_DERIVED = re.compile(
    r"(.*\.)?(attn_mask(_[01])?|num_batches_tracked|eval_conv\.(weight|bias))$|(sub|add)_mean\.(weight|bias)$"
)
# The authors' EDSR of 256 channels scales its residuals, their smaller one does not; the tensors do not tell.
_WIDE_EDSR_FEATURES, _WIDE_EDSR_RES_SCALE = 256, 0.1
# How many names a message lists of each kind.
_LISTED = 3
# Luma of R, G, B by ITU-R BT.601, full range: how a grey network is shown a colour image.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Model:
    """A network from a file, ready to upscale, and what a caller must know to use it well.

    Attributes:
        net: in evaluation mode and float32; `[N, channels, h, w]` to `[N, channels, scale * h, scale * w]`.
        architecture: its name, as spandrel spells it.
        scale: upscaling factor; 1 for networks that restore.
        channels: of the input; 1 for grey, 3 for RGB, 4 for RGB and alpha.
        tiling: whether an image may be cut into tiles; "internal" networks cut it themselves.
        multiple_of_px: sides must be multiples of this; `upscale` sees to it.
        minimum_px: no side may be smaller; `upscale` sees to it.
        square: both sides must be equal; `upscale` sees to it.
        supports_half: float16 is safe.
        supports_bfloat16: bfloat16 is safe.
    """

    net: nn.Module
    architecture: str
    scale: int
    channels: int
    tiling: Literal["supported", "discouraged", "internal"]
    multiple_of_px: int
    minimum_px: int
    square: bool
    supports_half: bool
    supports_bfloat16: bool

    @torch.no_grad()
    def upscale(self, lr: Tensor) -> Tensor:
        """Upscale images of any size and colour, without a gradient.

        A grey network is given the luma of a colour image, and the colour differences are upscaled bicubically.
        A network of RGB and alpha is given an opaque image.

        Args:
            lr: float `[N, C, h, w]` in [0, 1] on the device of the network, C = 1 or 3, or 4 where the network
                takes 4.

        Returns:
            `[N, C, scale * h, scale * w]` in [0, 1], dtype of `lr`.

        Raises:
            InputError: another number of channels.
        """
        if lr.shape[1] == self.channels:
            return self._run(lr).clamp(0, 1)
        if lr.shape[1] == 3 and self.channels == 4:
            return self._run(torch.cat([lr, torch.ones_like(lr[:, :1])], dim=1))[:, :3].clamp(0, 1)
        weights = torch.tensor(_LUMA, dtype=lr.dtype, device=lr.device).view(1, 3, 1, 1)
        if lr.shape[1] == 3 and self.channels == 1:
            luma = (lr * weights).sum(1, keepdim=True)
            return (self._run(luma) + imresize(lr - luma, self.scale)).clamp(0, 1)
        if lr.shape[1] == 1 and self.channels == 3:
            return (self._run(lr.expand(-1, 3, -1, -1)) * weights).sum(1, keepdim=True).clamp(0, 1)
        raise InputError(
            f"upscale: the {self.architecture} network takes {self.channels} channels, got {lr.shape[1]}; "
            "convert the image to RGB."
        )

    def _run(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        padded = _pad(lr, *self._padded_size(height, width))
        # A copy in any case: some networks of the community change their input in place.
        padded = padded.to(next(self.net.parameters()).dtype, copy=True)
        return self.net(padded)[..., : height * self.scale, : width * self.scale].to(lr.dtype)

    def _padded_size(self, height: int, width: int) -> tuple[int, int]:
        sides = [max(side, self.minimum_px) for side in (height, width)]
        sides = [-(-side // self.multiple_of_px) * self.multiple_of_px for side in sides]
        return (max(sides), max(sides)) if self.square else (sides[0], sides[1])


def load_model(path: Path) -> Model:
    """Open the model in `path`: ours, or any that spandrel knows.

    Args:
        path: .safetensors, .pth, .pt or .ckpt, of any layout that `read_checkpoint` finds weights in.

    Raises:
        InputError: no such file, no weights in it, or a network that neither we nor spandrel know.
        OSError: the file cannot be read.
    """
    checkpoint = read_checkpoint(path)
    _check_numbers(path, checkpoint.tensors)
    edsr = names.as_edsr(checkpoint.tensors)
    if edsr is not None:
        return _edsr_model(path, edsr, checkpoint.metadata)
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


def load_into(net: nn.Module, path: Path) -> str:
    """Load the weights in `path` into `net`, all of them or none.

    Tensors are found in bare files and under `params_ema` (preferred), `params`, `state_dict` and the like, with
    the prefixes of wrappers taken off; an RRDB or EDSR may go by any of its layouts' names.

    Args:
        net: a network that a `NetworkSpec` built, or any other module.
        path: the file.

    Returns:
        One line that says what was loaded.

    Raises:
        InputError: the file does not fit `net`, which is then unchanged; the message counts what fits.
        OSError: the file cannot be read.
    """
    checkpoint = read_checkpoint(path)
    _check_numbers(path, checkpoint.tensors)
    own = net.state_dict()
    given = checkpoint.tensors
    if isinstance(net, Edsr):
        given = names.as_edsr(given) or given
    elif names.is_rrdb(own):
        given = names.rrdb_first_names(given)
    derived = {name for name in own if _DERIVED.match(name)}
    missing = [name for name in own if name not in given and name not in derived]
    unexpected = [name for name in given if name not in own and not _DERIVED.match(name)]
    misshapen = [name for name in own if name in given and name not in derived and given[name].shape != own[name].shape]
    if missing or unexpected or misshapen:
        fits = len(own) - len(derived) - len(missing) - len(misshapen)
        raise InputError(
            f"weights {path}: {fits} of {len(own) - len(derived)} tensors fit the network"
            + _listed("missing", missing)
            + _listed("not of this network", unexpected)
            + _listed("of another shape", [f"{n} {_shape(given[n])} for {_shape(own[n])}" for n in misshapen])
            + f"; {_advice(path, checkpoint.tensors)}."
        )
    taken = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    net.load_state_dict({**own, **taken})
    numbers = sum(taken[name].numel() for name in taken if name not in derived)
    part = f" [{checkpoint.part}]" if checkpoint.part else ""
    return f"loaded {len(taken)} tensors ({numbers:,} numbers) from {path}{part}"


def save_weights(path: Path, net: nn.Module, metadata: Mapping[str, str]) -> None:
    """Save the weights of `net` so that spandrel and the tools on it open them; whole or not at all.

    A `.safetensors` file holds the bare state dict, a `.pth` file the same under `params` with the metadata
    beside it. Names are the published ones (an RRDB's are BasicSR's), tensors contiguous and unshared.

    Args:
        path: where to; its folder is made.
        net: the network, also one that is compiled or wrapped for several processes.
        metadata: what the file says of itself: architecture, scale, recipe, version.

    Raises:
        InputError: the suffix is neither `.safetensors` nor `.pth`.
        OSError: the disk is full or not writable; a file that stood there still does.
    """
    if path.suffix not in (".safetensors", ".pth"):
        raise InputError(f"weights {path}: the suffix must be .safetensors or .pth, got {path.suffix or 'none'}.")
    while (inner := getattr(net, "_orig_mod", getattr(net, "module", None))) is not None:
        net = inner
    if any(".eval_conv." in name for name in net.state_dict()):
        from selfsr.nets import trainable

        trainable.refresh_fused(net)
    tensors = dict(net.state_dict())
    if names.is_rrdb(tensors):
        tensors = names.rrdb_published_names(tensors)
    # A clone each: safetensors refuses tensors that share memory, and an averaged one must not move on meanwhile.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    said = {**metadata, **(net.facts() if isinstance(net, Edsr) else {})}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(tensors, metadata={"format": "pt", **said})
    else:
        buffer = io.BytesIO()
        torch.save({"params": tensors, "metadata": said}, buffer)
        content = buffer.getvalue()
    _write(path, content)


def read_metadata(path: Path) -> dict[str, str]:
    """Return what a weights file says of itself, such as the recipe of its run; nothing gives an empty dict.

    Raises:
        InputError: no weights file.
        OSError: the file cannot be read.
    """
    return read_checkpoint(path).metadata


def _edsr_model(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> Model:
    head = tensors["head.0.weight"]
    features, channels = head.shape[:2]
    if "res_scale" in metadata:
        res_scale = float(metadata["res_scale"])
    else:
        res_scale = _WIDE_EDSR_RES_SCALE if features >= _WIDE_EDSR_FEATURES else 1.0
    scale, blocks = _edsr_scale(tensors), names.count(tensors, r"body\.(\d+)\.body\.")
    net = Edsr(scale, channels, features=features, blocks=blocks, res_scale=res_scale)
    own = net.state_dict()
    if set(tensors) - set(own) or any(
        tensors[n].shape != own[n].shape if n in tensors else not _DERIVED.match(n) for n in own
    ):
        raise InputError(
            f"weights {path}: the names are those of an EDSR, but the tensors do not make up one of "
            f"{features} features and {blocks} blocks; use the file with the program that wrote it."
        )
    net.load_state_dict({**own, **tensors})
    return Model(
        net=net.eval(),
        architecture="EDSR",
        scale=scale,
        channels=channels,
        tiling="supported",
        multiple_of_px=1,
        minimum_px=1,
        square=False,
        supports_half=False,  # features of a picture of range 255 may leave the range of float16
        supports_bfloat16=True,
    )


def _edsr_scale(tensors: Mapping[str, Tensor]) -> int:
    scale = 1
    for name, tensor in tensors.items():
        if re.fullmatch(r"tail\.0\.\d+\.weight", name):
            scale *= round((tensor.shape[0] / tensor.shape[1]) ** 0.5)
    return scale


def _described(path: Path, tensors: dict[str, Tensor]) -> "ImageModelDescriptor[nn.Module]":
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    from selfsr.nets import trainable

    try:
        with trainable.expected_warnings():
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
    critic = roles <= set(tensors) or any(name.endswith(".weight_orig") for name in tensors)
    return " (they look like a discriminator: give the generator, net_g)" if critic else ""


def _advice(path: Path, tensors: dict[str, Tensor]) -> str:
    """Say what the file holds, where that can be told."""
    edsr = names.as_edsr(tensors)
    if edsr is not None:
        features, blocks = edsr["head.0.weight"].shape[0], names.count(edsr, r"body\.(\d+)\.body\.")
        what = f"EDSR x{_edsr_scale(edsr)} with {features} features and {blocks} blocks"
    else:
        try:
            descriptor = _described(path, tensors)
        except InputError:
            return "choose the network and the options that the file was trained with"
        what = f"{descriptor.architecture.id} x{descriptor.scale} ({', '.join(descriptor.tags)})"
    return f"the file holds {what}: set network and scale to match it"


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


def _pad(image: Tensor, height: int, width: int) -> Tensor:
    """Grow `image` to the right and below by mirroring, and by repeating the edge where the mirror ends."""
    for axis, target in ((-2, height), (-1, width)):
        while (gap := target - image.shape[axis]) > 0:
            side = image.shape[axis]
            mirrored = min(gap, side - 1)
            pad = (0, 0, 0, mirrored or gap) if axis == -2 else (0, mirrored or gap, 0, 0)
            image = functional.pad(image, pad, mode="reflect" if mirrored else "replicate")
    return image


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file
        raise
    finally:
        unfinished.unlink(missing_ok=True)
