"""The output of a model, resized to another scale than the model's."""

import numpy as np
import pytest
import torch

from selfsr.images.files import DecodedImage, image_to_tensor, tensor_to_pixels
from selfsr.images.resize import imresize
from selfsr.upscaling import resize_output as module
from selfsr.upscaling.resize_output import resize_output


def noise(height: int, width: int, channels: int, dtype: type) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(height).integers(0, top, (height, width, channels), endpoint=True).astype(dtype)


@pytest.mark.parametrize("scales", [(2, 4), (4, 2), (2, 3), (3, 2), (8, 1), (1, 3), (4, 4), (3, 8)])
@pytest.mark.parametrize("block_samples", [1, 2**24])
def test_resize_output_is_imresize_of_the_complete_image(tmp_path, monkeypatch, scales, block_samples):
    monkeypatch.setattr(module, "_BLOCK_SAMPLES", block_samples)
    model_scale, scale = scales
    image = DecodedImage(noise(23 * model_scale, 5 * model_scale, 3, np.uint8))
    resized = resize_output(image, model_scale=model_scale, scale=scale, scratch=tmp_path)
    expected = tensor_to_pixels(imresize(image_to_tensor(image), size=(23 * scale, 5 * scale))[0])
    difference = np.abs(resized.pixels.astype(int) - expected.astype(int))
    assert difference.max() <= 1  # a sum of float32 that lies at a half is rounded to either side
    assert (difference > 0).mean() < 1e-3


def test_resize_output_keeps_gray_depth_alpha_and_profile(tmp_path):
    image = DecodedImage(noise(12, 8, 1, np.uint16), np.full((12, 8), 65535, np.uint16), b"profile")
    resized = resize_output(image, model_scale=2, scale=3, scratch=tmp_path)
    assert resized.alpha is not None
    assert (resized.pixels.shape, resized.pixels.dtype, resized.icc) == ((18, 12, 1), np.uint16, b"profile")
    assert (resized.alpha.shape, int(resized.alpha.min())) == ((18, 12), 65535)
    expected = imresize(torch.from_numpy(image.pixels.astype(np.float32))[None, None, :, :, 0], size=(18, 12))
    assert np.abs(resized.pixels[:, :, 0] - expected.clamp(0, 65535).numpy()[0, 0]).max() <= 1
