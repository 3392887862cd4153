"""The space in which a diffusion network works: pixels, or the latents of a frozen autoencoder."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import torch
import yaml
from pydantic import Field, PositiveFloat, field_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selfsr.errors import InputError, shorten
from selfsr.nets.base import allow_any_size
from selfsr.nets.diffusion import taef2
from selfsr.nets.diffusion.base_layouts import build_without_weights, count_skipped_tokens
from selfsr.spec import Spec, expand_home

_KINDS = ("AutoencoderKL", "VQModel", "AutoencoderTiny")
_SUBFOLDERS = ("", "vae", "vqvae")
_TAEF2_PARTS = ("taef2_encoder", "taef2_decoder")
_TAEF2_SUFFIXES = (".safetensors", ".pth")
_BLOCK_BYTES = 2**20


class AutoencoderSpec(Spec):
    """The latent space of an autoencoder, which stays as it is."""

    autoencoder: Path = Field(
        description="folder of a diffusers AutoencoderKL, VQModel or AutoencoderTiny (config.json with its weights), "
        "or of TAEF2's two files"
    )
    scale: PositiveFloat | None = Field(
        None,
        description="factor that gives latents a variance of 1; null is scaling_factor of the configuration, or "
        f"{taef2.SCALE} for TAEF2",
    )
    sha256: str | None = Field(
        None, description="checksum of the weights, written into runs and weights files; another autoencoder is refused"
    )

    @field_validator("autoencoder")
    @classmethod
    def _expand_home(cls, path: Path) -> Path:
        return expand_home(path)


class AutoencoderError(InputError):
    """The autoencoder of a network is missing, or is not the one that the network needs."""


SpaceSpec = Literal["pixel"] | AutoencoderSpec


class Space(ABC):
    """Maps images in [0, 1] to the values that diffusion works on, and back.

    Copies share their weights, which never change: an EMA of the network costs no second autoencoder.

    Attributes:
        channels: channels of the values; for pixels those of the image.
        downscale: side of the image over the side of the values.
        is_latent: whether the values are latents of variance 1, as opposed to pixels in [-1, 1].
    """

    channels: int
    downscale: int
    is_latent: bool

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """Map `[N, C, H, W]` in [0, 1], sides multiples of `downscale`, to values, float32, without a gradient."""

    @abstractmethod
    def decode(self, values: Tensor, *, checkpointing: bool = False) -> Tensor:
        """Map values to `[N, C, H, W]`, float32, not clamped, with a gradient.

        Args:
            values: `[N, channels, H / downscale, W / downscale]`.
            checkpointing: recompute the layers in the backward pass instead of keeping their outputs.
        """

    @abstractmethod
    def apply(self, move: Callable[[Tensor], Tensor]) -> None:
        """Move the weights, as `nn.Module._apply` does; their dtype stays."""


class PixelSpace(Space):
    """Pixels in [-1, 1].

    Args:
        channels: channels of the images.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.downscale = 1
        self.is_latent = False

    def encode(self, image: Tensor) -> Tensor:
        """Return 2 image - 1."""
        return 2 * image.detach().float() - 1

    def decode(self, values: Tensor, *, checkpointing: bool = False) -> Tensor:  # noqa: ARG002 - nothing is kept
        """Return (values + 1) / 2."""
        return (values.float() + 1) / 2

    def apply(self, move: Callable[[Tensor], Tensor]) -> None:
        """Do nothing: pixels need no weights."""


class LatentSpace(Space):
    """The latents of a frozen autoencoder, scaled to a variance of 1.

    The posterior of an AutoencoderKL is taken at its mode, so that an image always has the same latent.

    Args:
        net: the autoencoder.
        scale: factor of the latents.
        sha256: checksum of the weights.
        shift: what is subtracted from the latents before the factor.
        precision: the type in which the autoencoder computes; its weights are float32.
    """

    def __init__(
        self,
        net: nn.Module,
        scale: float,
        sha256: str,
        *,
        shift: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.net: nn.Module = net.float().eval().requires_grad_(False)
        self.scale = scale
        self.shift = shift
        self.precision = precision
        self.sha256 = sha256
        self.is_latent = True
        self._is_taef2 = isinstance(net, taef2.Taef2)
        with torch.no_grad():
            probe = self.encode(torch.zeros(1, 3, 64, 64))
        self.channels = probe.shape[1]
        self.downscale = 64 // probe.shape[-1]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def apply(self, move: Callable[[Tensor], Tensor]) -> None:
        """Move the weights; they stay in float32."""
        self.net._apply(lambda tensor: move(tensor).to(tensor.dtype))

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return scaled latents."""
        return self.encode_with(self.net, image)

    def encode_with(self, net: nn.Module, image: Tensor) -> Tensor:
        """Return scaled latents of another encoder with the layers of this one, with a gradient, float32."""
        with self._compute(image):
            if self._is_taef2:
                latents = net.encoder(image.float())  # pyright: ignore[reportCallIssue]
            else:
                encoded = net.encode(2 * image.float() - 1)  # pyright: ignore[reportCallIssue]
                latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return self.scale * (latents.float() - self.shift)

    def _compute(self, values: Tensor) -> torch.autocast:
        return torch.autocast(values.device.type, self.precision, enabled=self.precision != torch.float32)

    def decode(self, values: Tensor, *, checkpointing: bool = False) -> Tensor:
        """Return the images of scaled latents."""
        with self._compute(values):
            latents = values.float() / self.scale + self.shift
            if self._is_taef2:
                return _run_layers(self.net.decoder, latents, checkpointing).float()  # pyright: ignore[reportArgumentType]
            if getattr(self.net, "_supports_gradient_checkpointing", False):
                toggle = self.net.enable_gradient_checkpointing if checkpointing else None
                (toggle or self.net.disable_gradient_checkpointing)()  # pyright: ignore[reportCallIssue]
                image = self.net.decode(latents).sample  # pyright: ignore[reportCallIssue]
            elif checkpointing and latents.requires_grad:
                image = checkpoint(lambda z: self.net.decode(z).sample, latents, use_reentrant=False)  # pyright: ignore
            else:
                image = self.net.decode(latents).sample  # pyright: ignore[reportCallIssue]
            return (image.float() + 1) / 2


def build_space(spec: SpaceSpec, channels: int, precision: torch.dtype = torch.float32) -> Space:
    """Return the space of a recipe.

    Args:
        spec: the space.
        channels: channels of the images.
        precision: the type in which an autoencoder computes.

    Raises:
        AutoencoderError: the autoencoder is missing, is of another kind, or is not the one that the checksum names.
    """
    if spec == "pixel":
        return PixelSpace(channels)
    if channels != 3:
        raise AutoencoderError(
            f"network.space: autoencoders are for RGB, got data.channels {channels}; set it to 3 or space to pixel."
        )
    folder = _find_folder(spec.autoencoder)
    with allow_any_size():
        net, scale, sha256 = _load_taef2(folder) if _taef2_files(folder) else _load_diffusers(folder)
    if spec.sha256 is not None and spec.sha256 != sha256:
        raise AutoencoderError(
            f"network.space: expected the autoencoder with the checksum {spec.sha256[:12]}..., got {folder} with "
            f"{sha256[:12]}...; use the one that the network was trained with, or leave sha256 out for a new run."
        )
    return LatentSpace(
        net, scale if spec.scale is None else spec.scale, sha256, shift=_read_shift(net), precision=precision
    )


def _read_shift(net: nn.Module) -> float:
    """Return what diffusers subtracts from latents; 0 for most autoencoders."""
    return float(getattr(getattr(net, "config", None), "shift_factor", None) or 0.0)


def _find_folder(path: Path) -> Path:
    """Return the folder that has the files, which may be a subfolder of a model folder."""
    if not path.is_dir():
        raise AutoencoderError(
            f"network.space.autoencoder: expected a folder with an autoencoder, got {path}, which "
            f"{'is a file' if path.exists() else 'does not exist'}; name the folder of config.json or of TAEF2's files."
        )
    for name in _SUBFOLDERS:
        folder = path / name
        if (folder / "config.json").is_file() or _taef2_files(folder):
            return folder
    raise AutoencoderError(
        f"network.space.autoencoder: expected config.json of diffusers or {_TAEF2_PARTS[0]}.pth and "
        f"{_TAEF2_PARTS[1]}.pth, got {path} without them; name the folder that has them."
    )


def _taef2_files(folder: Path) -> list[Path]:
    """Return the files of TAEF2's encoder and decoder; an empty list unless both are there."""
    files = [
        next((path for suffix in _TAEF2_SUFFIXES if (path := folder / f"{part}{suffix}").is_file()), None)
        for part in _TAEF2_PARTS
    ]
    return [path for path in files if path is not None] if None not in files else []


def _load_taef2(folder: Path) -> tuple[nn.Module, float, str]:
    from selfsr.nets.weights.read import read_weights  # its package imports all networks

    encoder, decoder = _taef2_files(folder)
    net = taef2.Taef2()
    try:
        net.load_parts(read_weights(encoder).tensors, read_weights(decoder).tensors)
    except ValueError as error:
        raise AutoencoderError(
            f"network.space.autoencoder: expected TAEF2 in {folder}, got {error}; use the published files."
        ) from error
    return net, taef2.SCALE, hash_files([encoder, decoder])


def _load_diffusers(folder: Path) -> tuple[nn.Module, float, str]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config["_class_name"]
    except (ValueError, LookupError, TypeError) as error:
        raise AutoencoderError(
            f"network.space.autoencoder: expected a configuration of diffusers in {folder / 'config.json'}, got one "
            "without _class_name; use a folder that save_pretrained wrote."
        ) from error
    if kind not in _KINDS:
        raise AutoencoderError(
            f"network.space.autoencoder: expected {', '.join(_KINDS[:-1])} or {_KINDS[-1]} in {folder}, got "
            f"{shorten(str(kind))}; use another autoencoder."
        )
    if count_skipped_tokens() is not None:
        import_diffusers()
        import diffusers

        return (
            build_without_weights(getattr(diffusers, kind), config),
            float(config.get("scaling_factor", 1.0)),
            "00" * 32,
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise AutoencoderError(
            f"network.space.autoencoder: expected a .safetensors file in {folder}, got none; save the autoencoder with "
            "save_pretrained."
        )
    import_diffusers()
    import diffusers

    try:
        net = getattr(diffusers, kind).from_pretrained(str(folder), local_files_only=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, TypeError, LookupError) as error:
        raise AutoencoderError(
            f"network.space.autoencoder: expected the weights of {kind} in {folder}, got {shorten(str(error))}; "
            "save it again with save_pretrained."
        ) from error
    return net, float(config.get("scaling_factor", 1.0)), hash_files(files)


def import_diffusers() -> None:
    """Check that diffusers can be imported.

    Raises:
        InputError: it is not installed.
    """
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        raise InputError(
            "network: diffusion networks are built with diffusers, got an environment without it; install it with "
            'pip install "selfsr[diffusion]".'
        ) from error


def hash_files(paths: list[Path], start: bytes = b"") -> str:
    """Return the SHA-256 checksum of some bytes and the content of files, in this order."""
    digest = hashlib.sha256(start)
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _run_layers(layers: nn.Sequential, x: Tensor, checkpointing: bool) -> Tensor:
    for layer in layers:
        x = checkpoint(layer, x, use_reentrant=False) if checkpointing and x.requires_grad else layer(x)
    return x


def relocate_folders(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a network's options with its autoencoder or base where it is now.

    A weights file that a run has saved names only the last folder of the path. It is searched next to the weights file,
    then where the recipe of the run folder has it, then from the current folder.

    Args:
        options: of any network, as a weights file states them.
        folder: the folder of the weights file.
    """
    part, key, section = _find_folder_option(options)
    relocated = _relocate(part, key, folder, section)
    return relocated if part is options else {**options, "space": relocated}


def describe_search(options: dict[str, Any]) -> str:
    """Return a sentence about where the autoencoder or base of a weights file is searched; "" if it is there."""
    part, key, _ = _find_folder_option(options)
    path = part.get(key)
    if not isinstance(path, str) or Path(path).exists():
        return ""
    return (
        " It is searched next to the weights file, where recipe.yaml of its run has it, and in the current folder: "
        "copy it there, or link it."
    )


def _find_folder_option(options: dict[str, Any]) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Return the options with the folder of autoencoder or base, its key in them, and their place in a recipe."""
    space = options.get("space")
    return (space, "autoencoder", ("network", "space")) if isinstance(space, dict) else (options, "base", ("network",))


def _relocate(options: dict[str, Any], key: str, folder: Path, section: tuple[str, ...]) -> dict[str, Any]:
    path = options.get(key)
    if not isinstance(path, str) or (Path(path).is_absolute() and Path(path).exists()):
        return options
    candidates = [folder / Path(path).name, *_read_path(folder.parent / "recipe.yaml", (*section, key))]
    return {**options, key: next((str(candidate) for candidate in candidates if candidate.is_dir()), path)}


def _read_path(recipe: Path, keys: tuple[str, ...]) -> list[Path]:
    """Return a path in the recipe of a run folder; an empty list if there is none."""
    try:
        value = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
        return [Path(value)]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return []
