"""What a training step gets: the images of one batch, on the device."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        hr: ground truth `[N, C, H, W]`, float in [0, 1].
        lr: input `[N, C, H/s, W/s]`, float in [0, 1].
        mask: edges of `hr`, bool `[N, 1, H, W]`, where the data bring their own.
    """

    hr: Tensor
    lr: Tensor
    mask: Tensor | None = None

    @property
    def scale(self) -> int:
        """How many times larger `hr` is than `lr`; the same for all images of a step."""
        return self.hr.shape[-1] // self.lr.shape[-1]

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format) -> "Batch":
        """Return the batch on `device` (non-blocking)."""
        move = {"device": device, "non_blocking": True}
        return replace(
            self,
            hr=self.hr.to(**move, memory_format=memory_format),
            lr=self.lr.to(**move, memory_format=memory_format),
            mask=None if self.mask is None else self.mask.to(**move),
        )


def moved(samples: Tensor, device: torch.device) -> Tensor:
    """Bring to the device; to a GPU through page-locked memory, so that the CPU does not wait."""
    if device.type == "cuda":
        samples = samples.pin_memory()
    return samples.to(device, non_blocking=True)
