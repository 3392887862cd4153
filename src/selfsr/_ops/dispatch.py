"""Run a backend of an operator: import its module, set the device, disable autocast."""

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from selfsr._ops import backends


def load_backend(package: str, caller: str, requested: str, image: Tensor) -> ModuleType:
    """Choose a backend and import its module, which has the backend's name.

    Args:
        package: the operator's package, such as "selfsr.selfsim".
        caller: the public function, for error messages.
        requested: "auto" or the name of a backend, see `backends.choose`.
        image: the tensor that the backend will process.

    Raises:
        InputError: the requested backend does not exist or cannot run.
    """
    return importlib.import_module(f"{package}.{backends.choose(caller, requested, image)}")


@contextlib.contextmanager
def disable_autocast(image: Tensor) -> Iterator[None]:
    """Disable autocast, and make the image's GPU the current one."""
    device = torch.cuda.device(image.device) if image.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(image.device.type, enabled=False):
        yield
