"""Weights of feature networks: from memory, from a file, or from torch.hub's folder, downloaded at the first use."""

import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from selfsr.errors import InputError, describe_exception

_URL = "https://download.pytorch.org/models/"

WeightsSource = Mapping[str, Tensor] | str | os.PathLike[str] | None


@dataclass(frozen=True)
class FeatureWeights:
    """A published file with the weights of a network.

    Attributes:
        title: name of the network.
        file: name of the file; the digits after the last hyphen are the start of its SHA-256.
        size_mb: size of the file, in MB.
        url: the folder of the file on the web.
    """

    title: str
    file: str
    size_mb: int
    url: str = _URL

    @property
    def path(self) -> Path:
        """The place of the file in torch.hub's folder, which the variable TORCH_HOME moves."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    def download(self) -> Path:
        """Return the file in torch.hub's folder; download it if it is not there.

        Raises:
            InputError: the download failed.
        """
        path = self.path
        if path.is_file():
            return path
        _print(f"{self.title}: downloading {self.url}{self.file} ({self.size_mb} MB) to {path}.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Moves the file into place after checking its hash: a broken download leaves nothing.
            torch.hub.download_url_to_file(self.url + self.file, str(path), hash_prefix=path.stem.split("-")[-1])
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{self.title}: expected the weights file {self.file} in {path.parent}, got none, and the download "
                f"failed ({error}); put the file there, or set TORCH_HOME to a folder with hub/checkpoints/{self.file}."
            ) from error
        return path


def load_tensors(
    file: FeatureWeights, expected: Mapping[str, Tensor], weights: WeightsSource = None
) -> dict[str, Tensor]:
    """Return the weights of a network by name.

    Args:
        file: the published file.
        expected: tensors with the names and shapes of the weights.
        weights: tensors by name or the path of a .pth or .safetensors file; None takes the published file.

    Raises:
        InputError: the weights are not available, or a tensor is missing, of another shape, or has numbers that are not
            finite.
    """
    tensors = weights if isinstance(weights, Mapping) else _read_file(file, weights)
    for name, tensor in expected.items():
        if (fault := _describe_fault(tensors.get(name), tensor)) is not None:
            place = "" if weights is None or isinstance(weights, Mapping) else f" {os.fspath(weights)}"
            raise InputError(
                f"{file.title}: weights{place} must contain {name} of shape {list(tensor.shape)}, got {fault}; "
                f"pass torchvision's {file.file}."
            )
    return {name: tensors[name] for name in expected}


def _describe_fault(got: object, expected: Tensor) -> str | None:
    """Return what came instead of a tensor of real, finite numbers and of the shape of `expected`; None if it came."""
    if got is None:
        return "none"
    if not isinstance(got, Tensor):
        return f"a {type(got).__name__}"
    if got.shape != expected.shape:
        return f"shape {list(got.shape)}"
    if not got.is_floating_point():
        return f"numbers of {got.dtype}"
    return None if got.isfinite().all() else "NaN or infinity"


def _read_file(file: FeatureWeights, weights: str | os.PathLike[str] | None) -> Mapping[str, Tensor]:
    path = file.download() if weights is None else Path(weights)
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(
            f"{file.title}: weights must be a weights file, got {path}, which {fault}; pass the path of {file.file}."
        )
    if path.suffix != ".safetensors":
        return read_tensors(file, path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
    except ImportError as error:
        raise InputError(
            f"{file.title}: reading {path} needs the package safetensors; install it, or pass the path of {file.file}."
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(file, path, error) from error


def read_tensors(file: FeatureWeights, path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a .pth file by name; nothing that it contains is run.

    Raises:
        InputError: the file cannot be read, or contains anything but tensors by name.
    """
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(file, path, error) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"{file.title}: {path} must contain tensors by name, got a {type(content).__name__}; pass {file.file}."
        )
    return cast(Mapping[str, Tensor], content)


def _unreadable(file: FeatureWeights, path: Path, error: Exception) -> InputError:
    """Return the error for a file that cannot be read."""
    # Other texts are about the inside of PyTorch, or advise to run what the file asks for.
    reason = describe_exception(error) if isinstance(error, OSError) else "it is damaged, or no file of plain tensors"
    return InputError(
        f"{file.title}: {path} must be a weights file, got one that cannot be read ({reason}); "
        f"download {file.file} again."
    )


def _print(text: str) -> None:
    """Print a line on stderr: the losses need torch only, and have no console."""
    print(text, file=sys.stderr, flush=True)
