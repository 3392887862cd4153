"""What a GPU can do at most, and how little an operator could ask of it: the figures beside a measured time.

Floors count what every implementation of the fast form (docs/selfsim.md) has to do, and nothing else: lane
instructions without addresses, masks, halos or idle lanes, and bytes that cross the GPU's memory once.
"""

from dataclasses import dataclass

import torch

# Times that M S^2 values cross the memory: two graphs and a gradient, each written and read.
GRAPH_PASSES = 6


@dataclass(frozen=True)
class Machine:
    """Peak rates of a GPU, from the clocks that its driver reports.

    Attributes:
        name: of the GPU.
        bytes_per_s: of its memory.
        lanes_per_s: float32 instructions of single lanes; a fused multiply-add is one.
    """

    name: str
    bytes_per_s: float
    lanes_per_s: float

    @classmethod
    def of(cls, device: torch.device) -> "Machine":
        """Ask the driver; clocks come in kHz, the memory moves data twice in a cycle."""
        found = torch.cuda.get_device_properties(device)
        lanes = 64 if (found.major, found.minor) in ((7, 0), (7, 5), (8, 0)) else 128
        return cls(
            found.name,
            2 * 1e3 * found.memory_clock_rate * found.memory_bus_width / 8,
            1e3 * found.clock_rate * found.multi_processor_count * lanes,
        )


@dataclass(frozen=True)
class Work:
    """What one call has to do at least.

    Attributes:
        lanes: float32 instructions of single lanes.
        bytes: read and written.
    """

    lanes: float
    bytes: float

    def floor_s(self, machine: Machine) -> float:
        """Seconds at the machine's peak rates, the longer of the two."""
        return max(self.lanes / machine.lanes_per_s, self.bytes / machine.bytes_per_s)

    def shares(self, machine: Machine, seconds: float) -> tuple[float, float]:
        """Shares of the machine's peak rates that a call of this length reached: instructions, bandwidth."""
        return self.lanes / machine.lanes_per_s / seconds, self.bytes / machine.bytes_per_s / seconds


def similarity_work(shape: tuple[int, ...], masked: int, search_px: int, window_px: int) -> Work:
    """Count the self-similarity loss with its gradient, in float32.

    For half of the displacements and each pixel of the images: forward, in both graphs, C differences, C squares and
    two window sums by doubling; backward two window sums and, for both ends, C differences and C products. The
    graphs and the gradient towards one cross the memory `GRAPH_PASSES` times.
    """
    images, channels, height, width = shape
    half = (search_px**2 - 1) // 2
    boxes = 2 * window_px.bit_length()
    per_pixel = half * (2 * (2 * channels + boxes) + 4 * channels + boxes)
    return Work(images * height * width * per_pixel, GRAPH_PASSES * 4 * masked * search_px**2)


def pacing_work(shape: tuple[int, ...]) -> Work:
    """Count the self-paced loss with its gradient, in float32: both images are read, the gradient is written.

    For each element: sum and difference; the two moments of both (eq. 8 and 9 of docs/pacing.md) under 11 taps, for
    each of five symmetric pairs seven instructions across and nine down; about 30 for weight, loss and slope.
    """
    elements = torch.Size(shape).numel()
    return Work(elements * (2 + 2 * 5 * (7 + 9) + 30), 3 * 4 * elements)
