"""A pretrained latent diffusion model as the frozen base of networks: a model folder of diffusers."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from selfsr.errors import InputError, shorten
from selfsr.nets.base import allow_any_size
from selfsr.nets.diffusion.base_layouts import build_without_weights, count_skipped_tokens
from selfsr.nets.diffusion.noise_schedule import NoiseSchedule, read_schedule
from selfsr.nets.diffusion.spaces import AutoencoderSpec, LatentSpace, build_space, hash_files, import_diffusers
from selfsr.nets.layers import Float32Conv2d

# The denoiser of a base: its folder and the classes that are known.
_DENOISERS = {"unet": ("UNet2DConditionModel",), "transformer": ("SD3Transformer2DModel",)}

BasePrecision = Literal["bfloat16", "float32"]
AutoencoderPrecision = Literal["float32", "bfloat16", "float16"]


class BaseError(InputError):
    """The base of a network is missing, or is not the one that the network needs."""


@dataclass(frozen=True)
class Base:
    """The parts of a pretrained model, frozen.

    Attributes:
        denoiser: the U-Net or transformer.
        space: the latents of its autoencoder.
        schedule: its noise process.
        sha256: checksum of denoiser and autoencoder; zeros on the device "meta".
        kind: its class and its input, for messages.
    """

    denoiser: Any
    space: LatentSpace
    schedule: NoiseSchedule
    sha256: str
    kind: str


def open_base(
    path: Path,
    sha256: str | None = None,
    *,
    precision: BasePrecision = "bfloat16",
    autoencoder_precision: AutoencoderPrecision = "float32",
) -> Base:
    """Open the base of a network; on the default device "meta", its denoiser has no values.

    Args:
        path: the model folder.
        sha256: the checksum that it must have; None for any.
        precision: dtype of the denoiser's weights.
        autoencoder_precision: dtype in which the autoencoder computes.

    Raises:
        BaseError: it is missing, is of another kind, or is not the one that the checksum names.
        InputError: diffusers is not installed.
    """
    folder, part = _find_denoiser(path)
    config = _read_config(folder)
    kind = config["_class_name"]
    if kind not in _DENOISERS[part]:
        raise BaseError(
            f"network.base: expected {' or '.join(name for names in _DENOISERS.values() for name in names)} in "
            f"{folder}, got {shorten(str(kind))}; use another base."
        )
    _check_overflow(path, autoencoder_precision)
    schedule = read_schedule(path)
    if (part == "transformer") != (schedule.prediction == "flow"):
        raise BaseError(
            f"network.base: expected a flow for a transformer and another process for a U-Net, got {kind} with "
            f"{schedule.prediction} in {path}; use a complete model folder."
        )
    with torch.device("cpu"):
        space = build_space(
            AutoencoderSpec(autoencoder=path / "vae"),  # pyright: ignore[reportCallIssue]
            3,
            getattr(torch, autoencoder_precision),
        )
    assert isinstance(space, LatentSpace)
    if config.get("in_channels") != space.channels:
        raise BaseError(
            f"network.base: expected a base from latents of {space.channels} channels, which its autoencoder has, got "
            f"{kind} with {config.get('in_channels')} input channels in {folder}; use a text-to-image model."
        )
    is_meta = torch.get_default_device().type == "meta" or count_skipped_tokens() is not None
    identity = f"{space.sha256} {schedule.prediction} {schedule.alpha.round(6).tolist()}"
    found = "00" * 32 if is_meta else _hash_base(tuple(_list_weights(folder)), identity)
    if sha256 is not None and not is_meta and found != sha256:
        raise BaseError(
            f"network.base: expected the base with the checksum {sha256[:12]}..., got {path} with "
            f"{found[:12]}... ({kind}); use the base that the network was trained on, or leave base_sha256 out for a "
            "new run."
        )
    with allow_any_size():
        denoiser = _build_denoiser(folder, kind, config, is_meta=is_meta)
    _cast_weights(denoiser, getattr(torch, precision))
    return Base(denoiser, space, schedule, found, kind)


def _find_denoiser(base: Path) -> tuple[Path, str]:
    if not base.is_dir():
        raise BaseError(
            f"network.base: expected a model folder of diffusers, got {base}, which "
            f"{'is a file' if base.exists() else 'does not exist'}; name the folder that has unet and vae."
        )
    for part in _DENOISERS:
        if (base / part / "config.json").is_file():
            return base / part, part
    raise BaseError(
        f"network.base: expected {' or '.join(f'{part}/config.json' for part in _DENOISERS)} in a model folder of "
        f"diffusers, got {base} without them; name the folder that has them."
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(config["_class_name"], str)
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise BaseError(
            f"network.base: expected a configuration of diffusers in {path}, got one without _class_name; use a folder "
            "that save_pretrained wrote."
        ) from error
    return config


def _check_overflow(path: Path, precision: AutoencoderPrecision) -> None:
    if precision != "float16" or not (path / "vae" / "config.json").is_file():
        return
    if _read_config(path / "vae").get("force_upcast"):
        raise BaseError(
            f"network.autoencoder_precision: expected bfloat16 or float32 for the autoencoder in {path / 'vae'}, "
            "whose configuration (force_upcast) says that it overflows in float16, got float16; change it."
        )


def _list_weights(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    plain = [path for path in files if ".fp16." not in path.name]
    if not files:
        raise BaseError(
            f"network.base: expected a .safetensors file in {folder}, got none; save the base with save_pretrained."
        )
    return plain or files


@cache
def _hash_base(files: tuple[Path, ...], identity: str) -> str:
    return hash_files(list(files), identity.encode())


def _build_denoiser(folder: Path, kind: str, config: dict[str, Any], *, is_meta: bool) -> nn.Module:
    import_diffusers()
    import diffusers

    model_class = getattr(diffusers, kind)
    try:
        if count_skipped_tokens() is not None:
            net = build_without_weights(model_class, config)
        elif is_meta:
            net = model_class.from_config(config)
        else:
            variant = "fp16" if all(".fp16." in path.name for path in _list_weights(folder)) else None
            diffusers.utils.logging.disable_progress_bar()
            net = model_class.from_pretrained(
                str(folder), local_files_only=True, torch_dtype=torch.float32, variant=variant
            )
    except (OSError, ValueError, RuntimeError, TypeError, LookupError) as error:
        raise BaseError(
            f"network.base: expected the weights of {kind} in {folder}, got {shorten(str(error))}; save it again with "
            "save_pretrained."
        ) from error
    net = net.eval().requires_grad_(False)
    if isinstance(getattr(net, "conv_out", None), nn.Conv2d):
        net.conv_out = Float32Conv2d.like(net.conv_out)
    return net


def _cast_weights(net: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights of matrix products in `dtype`; norms, biases and the last layer stay in float32."""
    for layer in net.modules():
        if type(layer) in (nn.Linear, nn.Conv2d):
            weight: Any = layer.weight
            skips = count_skipped_tokens() is not None
            weight.data = torch.empty_like(weight, dtype=dtype) if skips else weight.data.to(dtype)
