"""The edge mask: golden values, borders, strides, gray images, and an independent Laplacian."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from selfsr import edge_mask
from selfsr.errors import InputError
from selfsr.masks import rgb_to_luma_uint8, stride_mask


def golden_image():
    i, j = torch.meshgrid(torch.arange(12), torch.arange(14), indexing="ij")
    red, green, blue = (37 * i + 11 * j + 3 * i * j) % 256, (91 * i + 53 * j) % 256, (17 * i * i + 5 * j) % 256
    return torch.stack((red, green, blue))[None].float() / 255


def random_image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_golden_luma(device):
    row = rgb_to_luma_uint8(golden_image().to(device))[0, 0, 0].tolist()
    assert row == [0, 35, 70, 105, 140, 25, 60, 95, 129, 164, 49, 84, 119, 154]


def test_golden_mask(device):
    mask = edge_mask(golden_image().to(device))
    assert mask.dtype == torch.bool
    assert mask.shape == (1, 1, 12, 14)
    assert int(mask.sum()) == 79
    assert mask[0, 0, 0].int().tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0]
    assert mask[0, 0, 5].int().tolist() == [0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 1]
    assert int(edge_mask(golden_image().to(device), two_sided=True).sum()) == 152


def test_luma_equals_pillow():
    from PIL import Image

    levels = torch.randint(0, 256, (40, 50, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    expected = np.asarray(Image.fromarray(levels.numpy()).convert("L"))
    result = rgb_to_luma_uint8(levels.permute(2, 0, 1)[None].float() / 255)[0, 0]
    assert np.array_equal(result.numpy(), expected)


@pytest.mark.parametrize("threshold", [0.0, 20.0, 21.0, 300.0])
@pytest.mark.parametrize("two_sided", [False, True])
def test_mask_thresholds_scipys_laplacian(threshold, two_sided, device):
    hr = random_image(2, 3, 17, 23)
    mask = edge_mask(hr.to(device), threshold=threshold, two_sided=two_sided).cpu()
    for image, result in zip(rgb_to_luma_uint8(hr), mask, strict=True):
        response = ndimage.laplace(image[0].double().numpy(), mode="mirror")
        expected = np.abs(response) > threshold if two_sided else response > threshold
        assert np.array_equal(result[0].numpy(), expected)


def test_mask_has_the_dark_side_and_two_sided_also_the_bright_one(device):
    hr = torch.full((1, 3, 5, 6), 0.2, device=device)
    hr[..., 3:] = 0.8
    assert edge_mask(hr)[0, 0].int().tolist() == [[0, 0, 1, 0, 0, 0]] * 5
    assert edge_mask(hr, two_sided=True)[0, 0].int().tolist() == [[0, 0, 1, 1, 0, 0]] * 5


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_stride_keeps_diagonals(stride, device):
    tile = stride_mask(20, 23, stride=stride, device=device)
    expected = np.tile(np.eye(stride, dtype=bool), (20, 23))[:20, :23]
    assert np.array_equal(tile.cpu().numpy(), expected)
    hr = random_image(2, 3, 20, 23).to(device)
    assert torch.equal(edge_mask(hr, stride=stride), edge_mask(hr) & tile)


def test_stride_of_three_keeps_134_of_400():
    assert int(stride_mask(20, 20, stride=3).sum()) == 134


def test_gray_images_are_their_own_luma(device):
    gray = random_image(1, 1, 15, 16).to(device)
    assert torch.equal(rgb_to_luma_uint8(gray), (gray * 255).round())
    assert torch.equal(edge_mask(gray), edge_mask(gray.expand(-1, 3, -1, -1)))


def test_fourth_channel_is_ignored(device):
    hr = random_image(1, 4, 15, 16).to(device)
    assert torch.equal(edge_mask(hr), edge_mask(hr[:, :3]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_mask_is_the_same_for_other_dtypes(dtype, device):
    if device.type == "mps" and dtype == torch.float64:
        pytest.skip("this device has no float64")
    hr = random_image(1, 3, 9, 9).to(device, dtype)
    assert torch.equal(edge_mask(hr), edge_mask(hr.float()))


def test_batch_equals_its_images_and_has_no_gradient(device):
    hr = random_image(3, 3, 9, 8).to(device).requires_grad_()
    mask = edge_mask(hr)
    assert not mask.requires_grad
    assert torch.equal(mask, torch.cat([edge_mask(image[None]) for image in hr]))


def test_values_outside_the_range_are_clamped_and_nan_is_black(device):
    hr = random_image(1, 3, 9, 8).to(device)
    assert torch.equal(rgb_to_luma_uint8(4 * hr - 2), rgb_to_luma_uint8((4 * hr - 2).clamp(0, 1)))
    broken = hr.clone()
    broken[0, :, 4, 4] = math.nan
    hr[0, :, 4, 4] = 0
    assert torch.equal(edge_mask(broken), edge_mask(hr))


def test_mistake_raises_one_sentence():
    with pytest.raises(InputError, match=r"^edge_mask: stride must be 1 or more, got 0; 1 keeps every pixel\.$"):
        edge_mask(random_image(1, 3, 9, 9), stride=0)
    with pytest.raises(InputError, match=r"^edge_mask: hr must be at least 2 px high and wide, got \[1, 3, 1, 9\]"):
        edge_mask(random_image(1, 3, 1, 9))
    with pytest.raises(InputError, match=r"^edge_mask: hr must be a float tensor in \[0, 1\], got torch.uint8"):
        edge_mask(torch.zeros(1, 3, 9, 9, dtype=torch.uint8))
