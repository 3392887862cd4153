"""The images of the golden values."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Golden(NamedTuple):
    """Two images of 24 x 20 pixels: the output, the ground truth and the averaged generator's output."""

    sr: Tensor
    hr: Tensor
    ema_sr: Tensor


@pytest.fixture
def golden() -> Golden:
    axes = [torch.arange(size, dtype=torch.float64) for size in (2, 3, 24, 20)]
    b, c, i, j = torch.meshgrid(*axes, indexing="ij")
    hr = 0.5 + 0.3 * torch.sin(0.7 * i + 1.3 * c + 0.9 * b) * torch.cos(0.45 * j - 0.6 * c)
    hr = hr + 0.15 * torch.sin(0.11 * i * j + 0.4 * b)
    return Golden(
        sr=hr + 0.06 * torch.sin(1.9 * i - 0.8 * j + c + 0.5 * b),
        hr=hr,
        ema_sr=hr + 0.05 * torch.cos(1.1 * i + 0.3 * j),
    )
