"""The convolutions of VGG19 with torchvision's names and weights: the features of the perceptual loss.

Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1,
configuration E.
"""

import os
import pickle
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr.errors import InputError, check_choice

# Convolutions and channels of each stage; a pool between stages halves the image.
_STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
# Mean and standard deviation of ImageNet's RGB in [0, 1], which torchvision's weights expect.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

WEIGHTS_FILE = "vgg19-dcbb9e9d.pth"
_WEIGHTS_URL = f"https://download.pytorch.org/models/{WEIGHTS_FILE}"

VggWeights = Mapping[str, Tensor] | str | os.PathLike[str] | None


def _layer_numbers() -> dict[str, int]:
    """Return the index of each convolution in torchvision's list of layers (with ReLUs and pools)."""
    numbers: dict[str, int] = {}
    number = 0
    for stage, (convs, _) in enumerate(_STAGES, 1):
        for conv in range(1, convs + 1):
            numbers[f"conv{stage}_{conv}"] = number
            number += 2
        number += 1
    return numbers


# conv1_1: 0, conv1_2: 2, conv2_1: 5, ..., conv5_4: 34.
LAYERS = _layer_numbers()


class Vgg19(nn.Module):
    """The frozen convolutions of VGG19, up to a given one.

    Args:
        last: name of the deepest convolution, `conv1_1` to `conv5_4`.
        weights: tensors by torchvision's names (`features.0.weight` ...), or the path of a .pth or .safetensors file
            with these; None downloads torchvision's file into torch.hub's folder at the first use.

    Raises:
        InputError: the weights are not available or of another network, or `last` is unknown.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, last: str, weights: VggWeights = None) -> None:
        super().__init__()
        check_layers("Vgg19", [last])
        self.names: list[str] = [name for name, number in LAYERS.items() if number <= LAYERS[last]]
        self.features: nn.ModuleDict = nn.ModuleDict()
        channels = 3
        for name in self.names:
            width = _STAGES[int(name[4]) - 1][1]
            conv = nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1)  # pyright: ignore[reportUnknownMemberType]
            self.features[str(LAYERS[name])] = conv
            channels = width
        self.load_state_dict(_select_tensors(self.state_dict(), _load_weights(weights)))
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @property
    def minimum_px(self) -> int:
        """The smallest image side for which the deepest layer has a pixel."""
        return minimum_px(self.names)

    def forward(self, image: Tensor, layers: Container[str], *, before_relu: bool = True) -> dict[str, Tensor]:
        """Return the features of the named convolutions.

        Args:
            image: RGB `[N, 3, H, W]` in [0, 1], of the weights' dtype.
            layers: names of convolutions, none deeper than `last`.
            before_relu: return the features before the ReLU; False returns those after it.

        Returns:
            `[N, C, H / 2^k, W / 2^k]` by name, with k = 0 for conv1, 1 for conv2 and so on, rounded down.
        """
        features: dict[str, Tensor] = {}
        x = (image - self.mean) / self.std
        for name in self.names:
            if name.endswith("_1") and name != "conv1_1":
                x = functional.max_pool2d(x, 2)
            x = self.features[str(LAYERS[name])](x)
            if before_relu and name in layers:
                features[name] = x
            if name != self.names[-1] or not before_relu:
                # In place halves the memory of autograd, but would overwrite features that are returned.
                x = functional.relu(x, inplace=not (before_relu and name in layers))
            if not before_relu and name in layers:
                features[name] = x
        return features


def minimum_px(layers: Iterable[str]) -> int:
    """Return the smallest image side for which the deepest of the layers has a pixel."""
    return 2 ** (max(int(name[4]) for name in layers) - 1)


def check_layers(caller: str, layers: Iterable[str]) -> None:
    """Check that all names are convolutions of VGG19.

    Raises:
        InputError: one is not; the message lists all names.
    """
    for name in layers:
        check_choice(caller, "layers", name, tuple(LAYERS))


def _select_tensors(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in expected.items():
        if name not in weights or weights[name].shape != tensor.shape:
            got = f"shape {list(weights[name].shape)}" if name in weights else "none"
            raise InputError(
                f"Vgg19: weights must contain {name} of shape {list(tensor.shape)}, got {got}; "
                f"pass torchvision's {WEIGHTS_FILE}."
            )
    return {name: weights[name] for name in expected}


def _load_weights(weights: VggWeights) -> Mapping[str, Tensor]:
    if isinstance(weights, Mapping):
        return weights
    path = _download_weights() if weights is None else Path(weights)
    if not path.is_file():
        raise InputError(
            f"Vgg19: weights must be a weights file, got {path}, which does not exist; pass the path of {WEIGHTS_FILE}."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

            return load_file(path)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise InputError(
            f"Vgg19: reading {path} needs the package safetensors; install it, or pass the path of {WEIGHTS_FILE}."
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"Vgg19: {path} must be a weights file, got one that cannot be read ({reason}); "
            f"download {WEIGHTS_FILE} again."
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"Vgg19: {path} must contain tensors by name, got a {type(content).__name__}.")
    return cast(Mapping[str, Tensor], content)


def _download_weights() -> Path:
    """Return torchvision's file in torch.hub's folder; download it if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Moves the file into place after checking its hash: a broken download leaves nothing.
        torch.hub.download_url_to_file(_WEIGHTS_URL, str(path), hash_prefix=path.stem.split("-")[1])
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"Vgg19: the perceptual loss needs torchvision's {WEIGHTS_FILE} (548 MB), and the download failed "
            f"({error}); put the file into {path.parent}, or pass its path as weights."
        ) from error
    return path
