"""Measure the cost of a model: parameters, speed and memory."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selfsr.evaluation.benchmark import UpscaleFn
from selfsr.machine.memory import PeakBytes

PROBE_PX = 128


@dataclass
class Cost:
    """The cost of a model.

    Attributes:
        parameters: number of trained numbers.
        memory_mb: peak of weights and tensors for an input of `PROBE_PX` x `PROBE_PX`, in MB of 2**20 bytes, without
            what libraries allocate internally.
        seconds: time of upscaling, without reading, writing and scoring.
        megapixels: pixels of the outputs in this time, in millions.
    """

    parameters: int
    memory_mb: float
    seconds: float = 0.0
    megapixels: float = 0.0

    @property
    def megapixels_per_s(self) -> float:
        """Megapixels of output per second; NaN before the first output."""
        return self.megapixels / self.seconds if self.seconds > 0 else float("nan")


def measure_cost(upscale: UpscaleFn, net: nn.Module, channels: int, device: torch.device) -> Cost:
    """Upscale a square of `PROBE_PX` once, which also warms up the device, and measure its memory.

    Args:
        upscale: the upscaler of `net`.
        net: the network.
        channels: channels of the input.
        device: the device of `net`.

    Example:
        >>> net = nn.ConvTranspose2d(3, 3, 2, stride=2, bias=False)
        >>> cost = measure_cost(net, net, 3, torch.device("cpu"))
        >>> cost.parameters, round(cost.memory_mb, 2)  # an input of 0.19 MB and an output of 0.75 MB
        (36, 0.94)
    """
    own = [*net.parameters(), *net.buffers()]
    with torch.inference_mode(), PeakBytes() as counted:
        upscale(torch.rand(1, channels, PROBE_PX, PROBE_PX).to(device))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in own)
    return Cost(sum(parameter.numel() for parameter in net.parameters()), (weights + counted.peak) / 2**20)


def clock(upscale: UpscaleFn, cost: Cost, device: torch.device) -> UpscaleFn:
    """Return an upscaler that adds its time and pixels to `cost`.

    Args:
        upscale: maps `[N, C, h, w]` to `[N, C, scale h, scale w]`.
        cost: receives seconds and megapixels.
        device: the device that is waited for.
    """

    def run(lr: Tensor) -> Tensor:
        _wait(device)
        start = time.perf_counter()
        sr = upscale(lr)
        _wait(device)
        cost.seconds += time.perf_counter() - start
        cost.megapixels += sr.shape[0] * sr.shape[-2] * sr.shape[-1] / 1e6
        return sr

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
