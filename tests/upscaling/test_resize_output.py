"""The output of a model, resized to another size, and how that size is chosen."""

import numpy as np
import pytest
import torch

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, image_to_tensor, tensor_to_pixels
from selfsr.images.resize import imresize
from selfsr.upscaling import resize_output as module
from selfsr.upscaling.output_size import OutputSize
from selfsr.upscaling.resize_output import resize_output


def noise(height: int, width: int, channels: int, dtype: type) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(height).integers(0, top, (height, width, channels), endpoint=True).astype(dtype)


SIZES = [(46, 10), (23, 5), (69, 15), (31, 10), (46, 13), (92, 20), (15, 17), (60, 4), (1, 1), (24, 99)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block_samples", [1, 2**24])
def test_resize_output_is_imresize_of_the_complete_image(tmp_path, monkeypatch, size, block_samples):
    monkeypatch.setattr(module, "_BLOCK_SAMPLES", block_samples)
    image = DecodedImage(noise(46, 10, 3, np.uint8))
    resized = resize_output(image, size, scratch=tmp_path)
    expected = tensor_to_pixels(imresize(image_to_tensor(image), size=size)[0])
    difference = np.abs(resized.pixels.astype(int) - expected.astype(int))
    assert difference.max() <= 1  # a sum of float32 that lies at a half is rounded to either side
    assert (difference > 0).mean() < 1e-3


def test_resize_output_keeps_gray_depth_alpha_and_profile(tmp_path):
    image = DecodedImage(noise(12, 8, 1, np.uint16), np.full((12, 8), 65535, np.uint16), b"profile")
    resized = resize_output(image, (18, 12), scratch=tmp_path)
    assert resized.alpha is not None
    assert (resized.pixels.shape, resized.pixels.dtype, resized.icc) == ((18, 12, 1), np.uint16, b"profile")
    assert (resized.alpha.shape, int(resized.alpha.min())) == ((18, 12), 65535)
    expected = imresize(torch.from_numpy(image.pixels.astype(np.float32))[None, None, :, :, 0], size=(18, 12))
    assert np.abs(resized.pixels[:, :, 0] - expected.clamp(0, 65535).numpy()[0, 0]).max() <= 1


@pytest.mark.parametrize(
    ("factor", "max_side_px", "size", "expected"),
    [
        (3, None, (7, 5), (21, 15)),
        (1.15, None, (150, 10), (173, 12)),
        (2.5, None, (3, 5), (8, 13)),
        (0.1, None, (4, 50), (1, 5)),
        (4, 1000, (300, 200), (1000, 667)),
        (2, 1000, (300, 200), (600, 400)),
        (2, 100, (300, 200), (100, 67)),
        (4, 65535, (3, 21845), (9, 65535)),
    ],
)
def test_output_size_is_the_rounded_product_within_the_limit(factor, max_side_px, size, expected):
    assert OutputSize(factor, max_side_px).compute(*size) == expected


@pytest.mark.parametrize(
    "options", [(0.0, None), (-2.0, None), (float("nan"), None), (float("inf"), None), (65, None), (2, 0)]
)
def test_output_size_refuses_what_has_no_size(options):
    with pytest.raises(InputError, match=r"^upscale: expected (an output factor|a longest side).*; pass one such as"):
        OutputSize(*options)
