"""Peak rates of a GPU, and lower bounds on the work of the operators, to compare with measured times.

The bounds count only what every implementation of the fast form (docs/selfsim.md) must do: instructions of single
lanes without addresses, masks, halos or idle lanes, and one transfer of each byte through the GPU's memory.
"""

from dataclasses import dataclass

import torch

# Transfers of M S^2 values through the memory: two graphs and a gradient, each written and read.
GRAPH_PASSES = 6


@dataclass(frozen=True)
class GpuPeaks:
    """Peak rates of a GPU, from the clocks that its driver reports.

    Attributes:
        name: name of the GPU.
        bytes_per_s: bandwidth of its memory.
        lanes_per_s: float32 instructions of single lanes; a fused multiply-add counts once.
    """

    name: str
    bytes_per_s: float
    lanes_per_s: float

    @classmethod
    def read(cls, device: torch.device) -> "GpuPeaks":
        """Read the clocks in kHz from the driver; the memory transfers data twice per cycle."""
        properties = torch.cuda.get_device_properties(device)
        lanes = 64 if (properties.major, properties.minor) in ((7, 0), (7, 5), (8, 0)) else 128
        return cls(
            properties.name,
            2 * 1e3 * properties.memory_clock_rate * properties.memory_bus_width / 8,
            1e3 * properties.clock_rate * properties.multi_processor_count * lanes,
        )


@dataclass(frozen=True)
class MinimumWork:
    """Work that one call must do at least.

    Attributes:
        lanes: float32 instructions of single lanes.
        bytes: bytes read and written.
    """

    lanes: float
    bytes: float

    def minimum_seconds(self, machine: GpuPeaks) -> float:
        """Return the time at the peak rates: the longer of instructions and transfers."""
        return max(self.lanes / machine.lanes_per_s, self.bytes / machine.bytes_per_s)

    def peak_shares(self, machine: GpuPeaks, seconds: float) -> tuple[float, float]:
        """Return the shares of the peak rates that a call of `seconds` reaches: instructions, bandwidth."""
        return self.lanes / machine.lanes_per_s / seconds, self.bytes / machine.bytes_per_s / seconds


def similarity_work(shape: tuple[int, ...], masked: int, search_px: int, window_px: int) -> MinimumWork:
    """Count the work of the self-similarity loss with its gradient in float32.

    For half of the displacements and each pixel of the images: forward, in both graphs, C differences, C squares and
    two window sums by doubling; backward two window sums and, for both ends, C differences and C products. The
    graphs and the gradient by one of them are transferred `GRAPH_PASSES` times.
    """
    images, channels, height, width = shape
    half = (search_px**2 - 1) // 2
    boxes = 2 * window_px.bit_length()
    per_pixel = half * (2 * (2 * channels + boxes) + 4 * channels + boxes)
    return MinimumWork(images * height * width * per_pixel, GRAPH_PASSES * 4 * masked * search_px**2)


def pacing_work(shape: tuple[int, ...]) -> MinimumWork:
    """Count the work of the self-paced loss with its gradient in float32.

    For each element: sum and difference; the two moments of both (eq. 8 and 9 of docs/pacing.md) under 11 taps, for
    each of five symmetric pairs seven instructions across and nine down; about 30 for weight, loss and slope. Both
    images are read, and the gradient is written.
    """
    elements = torch.Size(shape).numel()
    return MinimumWork(elements * (2 + 2 * 5 * (7 + 9) + 30), 3 * 4 * elements)
