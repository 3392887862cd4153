"""Launch options of the kernels by compute capability and version of Triton.

There is no tuning at run time: the choice never depends on a measurement, so that a GPU returns the same bits in every
run. Entries come from compiling ahead of time (bench/sass.py): registers decide how many programs share a
multiprocessor. bench/gpu.py times the alternatives on a GPU.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

# From here on the compiler needs fewer registers.
_FRUGAL_TRITON = (3, 8)
# Registers of a thread of `collect` before 3.8, by compute capability. Without a limit it takes 86 to 98, and two
# programs share a multiprocessor; with 80 it is three. On 8.0 the limit would spill; other GPUs were not compiled for.
_COLLECT_REGISTERS = {(8, 6): 80, (8, 9): 80, (9, 0): 80, (10, 0): 80, (12, 0): 80}


@dataclass(frozen=True)
class LaunchConfig:
    """Launch options that differ between GPUs and compilers.

    Attributes:
        row_warps: warps of a program of `row_kernel`, which has the same pixels in any case.
        collect_registers: most registers of a thread of `collect_kernel`; None leaves it to the compiler.
    """

    row_warps: int = 8
    collect_registers: int | None = None

    def collect_options(self) -> dict[str, Any]:
        """Return the compiler options of `collect_kernel`."""
        return {} if self.collect_registers is None else {"maxnreg": self.collect_registers}


def choose_config(capability: tuple[int, int], version: tuple[int, int]) -> LaunchConfig:
    """Return the launch options for an NVIDIA GPU and a version of Triton.

    >>> choose_config((9, 0), (3, 8))
    LaunchConfig(row_warps=8, collect_registers=None)
    >>> choose_config((9, 0), (3, 6))
    LaunchConfig(row_warps=16, collect_registers=80)
    """
    if version >= _FRUGAL_TRITON:
        return LaunchConfig()
    # 168 to 186 registers with 8 warps leave one program of 8 warps on a multiprocessor; 16 warps take 86 to 93.
    return LaunchConfig(row_warps=16, collect_registers=_COLLECT_REGISTERS.get(capability))


def config_of(tensor: Tensor) -> LaunchConfig:
    """Return the launch options for the device of a tensor."""
    if not tensor.is_cuda or torch.version.hip is not None:
        return LaunchConfig()
    return _read_config(tensor.device)


@functools.cache
def _read_config(device: torch.device) -> LaunchConfig:
    return choose_config(torch.cuda.get_device_capability(device), triton_version())


@functools.cache
def triton_version() -> tuple[int, int]:
    """Return the major and the minor version of Triton."""
    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)
