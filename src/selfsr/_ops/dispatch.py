"""Run a backend of an operator: import its module, set the device, disable autocast, and replace it if it fails."""

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from selfsr._ops import backends
from selfsr._ops.launches import KernelFailed, describe_kernel_failure


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


def replace_failing_kernels(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operator's function that runs again without Triton if one of its kernels does not compile.

    With the backend "auto" it runs in eager then, and later calls do so at once. With "triton" it raises an InputError.
    """

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except KernelFailed as error:
            reason = describe_kernel_failure(error)
            backends.refuse("triton", reason)
            result = function(*arguments)
            warnings.warn(f"backend 'triton' cannot run because {reason}; eager runs instead, slower", stacklevel=2)
            return result

    return call
