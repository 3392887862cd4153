"""VGG19 up to its last convolution, as torchvision names and trained it: the features of the perceptual loss.

Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1,
configuration E.
"""

import difflib
import os
import pickle
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfsr.errors import InputError

# Convolutions of each stage, and their channels; between stages the image is halved.
_STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
# Color statistics that torchvision's weights were trained with, for RGB in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

WEIGHTS_FILE = "vgg19-dcbb9e9d.pth"
_WEIGHTS_URL = f"https://download.pytorch.org/models/{WEIGHTS_FILE}"

Weights = Mapping[str, Tensor] | str | os.PathLike[str] | None


def _layer_numbers() -> dict[str, int]:
    """Return each convolution's number in torchvision's list, where a ReLU follows each, and a pool each stage."""
    numbers, number = {}, 0
    for stage, (convs, _) in enumerate(_STAGES, 1):
        for conv in range(1, convs + 1):
            numbers[f"conv{stage}_{conv}"] = number
            number += 2
        number += 1
    return numbers


# conv1_1: 0, conv1_2: 2, conv2_1: 5, ..., conv5_4: 34.
LAYERS = _layer_numbers()


class Vgg19(nn.Module):
    """The convolutions of VGG19, frozen, only as deep as asked.

    Args:
        last: the deepest convolution to have, `conv1_1` to `conv5_4`.
        weights: tensors by torchvision's names (`features.0.weight` ...), or a file of them (.pth, .safetensors), or
            None for torchvision's, which are fetched into torch.hub's folder when they are used for the first time.

    Raises:
        InputError: the weights cannot be had or are not VGG19's, or `last` is none of its convolutions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, last: str, weights: Weights = None) -> None:
        super().__init__()
        check_layers("Vgg19", [last])
        self.names = [name for name, number in LAYERS.items() if number <= LAYERS[last]]
        self.features = nn.ModuleDict()
        channels = 3
        for name in self.names:
            width = _STAGES[int(name[4]) - 1][1]
            self.features[str(LAYERS[name])] = nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1)
            channels = width
        self.load_state_dict(_own_tensors(self.state_dict(), _read(weights)))
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @property
    def minimum_px(self) -> int:
        """The smallest side of an image that leaves a pixel to the deepest layer."""
        return minimum_px(self.names)

    def forward(self, image: Tensor, layers: Container[str], *, before_relu: bool = True) -> dict[str, Tensor]:
        """Return the features of the named convolutions.

        Args:
            image: RGB `[N, 3, H, W]` in [0, 1], of the weights' dtype.
            layers: names of convolutions, none deeper than `last`.
            before_relu: what the convolution gives; False: what its ReLU makes of it.

        Returns:
            `[N, C, H / 2^k, W / 2^k]` by name, with k = 0 for conv1, 1 for conv2 and so on, rounded down.
        """
        found = {}
        x = (image - self.mean) / self.std
        for name in self.names:
            if name.endswith("_1") and name != "conv1_1":
                x = functional.max_pool2d(x, 2)
            x = self.features[str(LAYERS[name])](x)
            if before_relu and name in layers:
                found[name] = x
            if name != self.names[-1] or not before_relu:
                # In place, unless what goes in is wanted: autograd then keeps half as much.
                x = functional.relu(x, inplace=not (before_relu and name in layers))
            if not before_relu and name in layers:
                found[name] = x
        return found


def minimum_px(layers: Iterable[str]) -> int:
    """Return the smallest side of an image that leaves a pixel to the deepest of the layers."""
    return 2 ** (max(int(name[4]) for name in layers) - 1)


def check_layers(where: str, layers: Iterable[str]) -> None:
    """Check that all names are convolutions of VGG19.

    Raises:
        InputError: one is not; the message lists those there are.
    """
    for name in layers:
        if name not in LAYERS:
            near = difflib.get_close_matches(name, LAYERS, 1)
            raise InputError(
                f"{where}: layers must be among {', '.join(LAYERS)}, got {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else ".")
            )


def _own_tensors(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in own.items():
        if name not in given or given[name].shape != tensor.shape:
            came = f"of shape {list(given[name].shape)}" if name in given else "missing"
            raise InputError(
                f"Vgg19: weights must hold {name} of shape {list(tensor.shape)}, it is {came}; "
                f"give torchvision's {WEIGHTS_FILE}, not one of another network."
            )
    return {name: given[name] for name in own}


def _read(weights: Weights) -> Mapping[str, Tensor]:
    if isinstance(weights, Mapping):
        return weights
    path = _fetched() if weights is None else Path(weights)
    if not path.is_file():
        raise InputError(f"Vgg19: there is no weights file {path}; set weights to the path of {WEIGHTS_FILE}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise InputError(
            f"Vgg19: reading {path} needs the package safetensors; install it, or set weights to {WEIGHTS_FILE}."
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"Vgg19: {path} must be a file of tensors, it cannot be read ({reason}); download {WEIGHTS_FILE} anew."
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"Vgg19: {path} must hold tensors by name, got a {type(content).__name__}.")
    return content


def _fetched() -> Path:
    """Return torchvision's file in torch.hub's folder, fetched if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and moved when its hash is right: a broken download leaves nothing.
        torch.hub.download_url_to_file(_WEIGHTS_URL, str(path), hash_prefix=path.stem.split("-")[1])
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"Vgg19: the perceptual loss needs torchvision's {WEIGHTS_FILE} (548 MB), which could not be fetched "
            f"({error}); put the file into {path.parent}, or set weights to its path."
        ) from error
    return path
