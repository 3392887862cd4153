"""Color fixes against published values, and against their definitions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selfsr.images.color import rgb_to_luma
from selfsr.images.color_fix import WAVELET_REACH_PX, fix_colors, low_pass
from selfsr.images.files import tensor_to_pixels
from selfsr.images.resize import imresize
from selfsr.upscaling.global_colors import match_moments

# At (channel, row, column) (0, 0, 0), (1, 10, 20), (2, 47, 47), and the means of the channels.
GOLDEN = {
    "adain": [0.451910828046, 0.444670154530, 0.315487730341, 0.449864356305, 0.505315788163, 0.309614638774],
    "wavelet": [0.424237618288, 0.380258594971, 0.246274117373, 0.449398603352, 0.511966482851, 0.313934731849],
}


def waves() -> tuple[Tensor, Tensor]:
    """Return the images of the golden values, float64 `[1, 3, 48, 48]`."""
    i, j = torch.meshgrid(*[torch.arange(48, dtype=torch.float64)] * 2, indexing="ij")
    image = [
        0.5 + 0.3 * torch.sin(0.37 * i + 0.11 * j),
        0.4 + 0.2 * torch.cos(0.23 * j - 0.05 * i),
        0.6 + 0.25 * torch.sin(0.007 * i * j),
    ]
    reference = [
        0.45 + 0.2 * torch.sin(0.31 * i + 0.13 * j),
        0.5 + 0.1 * torch.cos(0.19 * j),
        0.3 + 0.15 * torch.sin(0.05 * i + 0.2 * j),
    ]
    return torch.stack(image)[None], torch.stack(reference)[None]


@pytest.mark.parametrize("fix", ["adain", "wavelet"])
def test_fix_is_published(fix) -> None:
    (fixed,) = fix_colors(*waves(), fix)
    found = [fixed[0, 0, 0], fixed[1, 10, 20], fixed[2, 47, 47], *fixed.mean(dim=(1, 2))]
    assert torch.stack(found).tolist() == pytest.approx(GOLDEN[fix], abs=1e-12)


def test_low_pass_has_the_published_kernel() -> None:
    impulse = torch.zeros(1, 1, 129, 129, dtype=torch.float64)
    impulse[..., 64, 64] = 1
    kernel = low_pass(impulse)[0, 0]
    rows = kernel.sum(dim=1)
    offsets = torch.arange(129, dtype=torch.float64) - 64
    assert kernel[64, 64].item() == pytest.approx(0.0009765625, abs=1e-15)
    assert rows.nonzero()[:, 0].aminmax() == (64 - WAVELET_REACH_PX, 64 + WAVELET_REACH_PX)
    assert (rows * offsets.square()).sum().sqrt().item() == pytest.approx(13.0576, abs=1e-4)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-14)


def test_ycbcr_keeps_luma_and_takes_the_color_differences() -> None:
    image, reference = waves()
    fixed = fix_colors(image, reference, "ycbcr")
    assert (rgb_to_luma(fixed) - rgb_to_luma(image)).abs().max() < 1e-15
    assert ((fixed - rgb_to_luma(fixed)) - (reference - rgb_to_luma(reference))).abs().max() < 1e-15


def test_an_image_of_its_own_reference_stays_as_it_is() -> None:
    image, _ = waves()
    for fix in ("wavelet", "adain", "ycbcr", "none"):
        assert (fix_colors(image, image, fix) - image).abs().max() < 1e-15, fix


@pytest.mark.parametrize("rows", [3, 200])
def test_moments_in_blocks_equal_those_of_the_complete_image(rows: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(1, 3, rows, 500, generator=generator)
    out = torch.rand(1, 3, 4 * rows, 2000, generator=generator) * 0.3 + 0.2
    expected = fix_colors(out.double(), imresize(lr.double(), 4).clamp(0, 1), "adain").clamp(0, 1)
    found = np.zeros((4 * rows, 2000, 3), np.uint8)

    def write(block_rows: slice, block: Tensor) -> None:
        found[block_rows] = tensor_to_pixels(block[0])

    match_moments(out[0].permute(1, 2, 0).numpy(), lambda part: lr[:, :, part], 4, write)
    assert np.abs(found.astype(int) - tensor_to_pixels(expected[0]).astype(int)).max() <= 1
    assert np.mean(found != tensor_to_pixels(expected[0])) < 1e-4
