"""Learned weights of LPIPS and DISTS, read from the files of the package torchmetrics, which is not imported."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from selfsr.errors import InputError


def read_torchmetrics_file(caller: str, name: str) -> Mapping[str, Tensor]:
    """Return the tensors of a file in the folder of torchmetrics.

    Args:
        caller: the start of an error's message.
        name: path of the file below the folder.

    Raises:
        InputError: torchmetrics is not installed, or has no such file.
    """
    found = find_spec("torchmetrics")
    if found is None or found.origin is None:
        raise InputError(
            f"{caller}: expected the package torchmetrics, whose files have the learned weights, got none; "
            'install it with pip install "selfsr[metrics]".'
        )
    path = Path(found.origin).parent / name
    if not path.is_file():
        raise InputError(
            f"{caller}: expected the learned weights in torchmetrics' file {path}, got none; "
            "install a torchmetrics of version 1.8 or later."
        )
    return cast(Mapping[str, Tensor], torch.load(path, map_location="cpu", weights_only=True))
