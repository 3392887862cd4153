"""Networks with one channel: their training data and their scores, with the colors of scikit-image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsr.data.loader import Loader
from selfsr.data.spec import FolderSpec
from selfsr.evaluation.benchmark import evaluate_set
from selfsr.images.color import rgb_to_luma
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import list_images
from selfsr.images.resize import bicubic_lr, imresize

rgb2ycbcr = pytest.importorskip("skimage.color").rgb2ycbcr

CPU = torch.device("cpu")


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Return a folder of one smooth but colorful image of 24 x 30."""
    y, x = np.mgrid[:24, :30] / 6
    rgb = np.stack([np.sin(x + 2 * y), np.cos(3 * x - y), np.sin(x * y)], axis=-1)
    write_image(tmp_path / "a.png", DecodedImage(np.uint8(127.5 + 127 * rgb)))
    return tmp_path


def y_of(image: torch.Tensor) -> torch.Tensor:
    """Return Y of 16 to 235 of `[1, 3, H, W]` in [0, 1], by scikit-image in float64."""
    return torch.from_numpy(rgb2ycbcr(image[0].permute(1, 2, 0).double().numpy())[None, None, ..., 0])


def read_tensor(folder: Path) -> torch.Tensor:
    return torch.from_numpy(read_image(folder / "a.png").pixels).permute(2, 0, 1)[None] / 255


def test_rgb_to_luma_is_full_range_y(colors):
    torch.testing.assert_close(
        16 + 219 * rgb_to_luma(read_tensor(colors)).double(), y_of(read_tensor(colors)), rtol=0, atol=1e-4
    )
    one = read_tensor(colors)[:, :1]
    assert rgb_to_luma(one) is one


@pytest.mark.parametrize("scale", [2, 3])
def test_luma_network_trains_on_unrounded_y_of_rounded_rgb(colors, scale):
    spec = FolderSpec(kind="folder", hr=colors, channels=1)
    loader = Loader(spec.build(scale=scale, crop_px=24), batch=8, seed=0, workers=0)
    (batch,) = loader.prepare(next(loader), CPU)
    assert batch.hr.shape == (8, 1, 24, 24)
    whole = read_tensor(colors)
    lr = bicubic_lr(whole, scale)  # rounded to 8 bit in RGB, as a file
    hr_y, lr_y = y_of(whole)[0, 0], y_of(lr)[0, 0]
    rounded = torch.round(lr_y)
    crops = {(left, turn) for left in range(0, 7, scale) for turn in range(8)}
    for hr, small in zip(batch.hr[:, 0], batch.lr[:, 0], strict=True):
        fits = [
            (left, turn)
            for left, turn in crops
            if torch.allclose(turned(hr_y[:, left : left + 24], turn).float(), 16 + 219 * hr, rtol=0, atol=1e-3)
        ]
        assert fits
        left, turn = fits[0]
        window = slice(left // scale, (left + 24) // scale)
        torch.testing.assert_close(16 + 219 * small, turned(lr_y[:, window], turn).float(), rtol=0, atol=1e-3)
        assert (16 + 219 * small - turned(rounded[:, window], turn)).abs().max() > 0.2, "luma was rounded"


def turned(image: torch.Tensor, turn: int) -> torch.Tensor:
    image = image.flip(1) if turn & 1 else image
    image = image.flip(0) if turn & 2 else image
    return image.T if turn & 4 else image


def test_luma_network_is_evaluated_on_its_own_y(colors):
    scale, given = 2, []

    def upscale(lr):
        given.append(lr)
        return imresize(lr, scale) + 0.01

    scores = evaluate_set(upscale, "s", list_images(colors), scale=scale, device=CPU, luma_only=True).mean
    hr = read_tensor(colors)
    lr = bicubic_lr(hr, scale)
    torch.testing.assert_close(16 + 219 * given[0].double(), y_of(lr), rtol=0, atol=1e-4)
    y = imresize(y_of(lr), scale) + 2.19
    error = (y.clamp(16, 235).round() - y_of(hr))[..., 2:-2, 2:-2]
    assert scores["psnr_y"] == pytest.approx(float(10 * torch.log10(255**2 / error.square().mean())), abs=1e-4)
    from skimage.metrics import structural_similarity

    expected = structural_similarity(
        y.clamp(16, 235).round()[0, 0, 2:-2, 2:-2].numpy(), y_of(hr)[0, 0, 2:-2, 2:-2].numpy(), data_range=255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )[1][5:-5, 5:-5].mean()  # fmt: skip
    assert scores["ssim_y"] == pytest.approx(expected, abs=1e-6)
    # In RGB: the same luma, the colors of bicubic.
    rgb = evaluate_set(lambda x: imresize(x, scale) + 0.01, "s", list_images(colors), scale=scale, device=CPU).mean
    assert scores["psnr_rgb"] == pytest.approx(rgb["psnr_rgb"], abs=1e-4)
    assert scores["psnr_y"] != rgb["psnr_y"]


def test_training_and_command_score_a_luma_network_equally(colors, tmp_path_factory):
    from selfsr.cli import app
    from selfsr.nets.lapsrn import LapSrnSpec
    from selfsr.nets.weights.load import load_model
    from selfsr.nets.weights.save import save_weights

    torch.manual_seed(0)
    net = LapSrnSpec(features=4, convs=1).build(2, 1).eval()
    out = tmp_path_factory.mktemp("out")
    save_weights(out / "net.safetensors", net, {})
    evaluate = evaluate_set(
        load_model(out / "net.safetensors").upscale, "s", list_images(colors), scale=2, device=CPU, luma_only=True
    )
    command = ["evaluate", str(out / "net.safetensors"), "--data", f"s={colors}", "--out", str(out / "scores.json")]
    assert not app(command, standalone_mode=False)
    record = json.loads((out / "scores.json").read_text())
    assert record["results"][0]["sets"]["s"]["mean"] == pytest.approx(evaluate.mean, abs=1e-6)
