"""Sets of pictures: what is compared with what, names and pairs, and the sentences for what does not fit."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.evaluation.benchmark import (
    SetScores,
    bicubic_upscaler,
    evaluate_set,
    find_sets,
    image_names,
    pair_lr,
    protocol,
)
from selfsr.evaluation.psnr_ssim import scores
from selfsr.images.files import Picture, write_picture
from selfsr.images.resize import imresize

CPU = torch.device("cpu")


def nearest(lr):
    return functional.interpolate(lr, scale_factor=2)


def write(path, height=31, width=26, channels=3, dtype=np.uint8, seed=0):
    """Write a smooth random picture; return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.rand(1, channels, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smooth = imresize(noise, size=(height, width))[0].clamp(0, 1).permute(1, 2, 0).numpy()
    pixels = np.ascontiguousarray(np.round(smooth * np.iinfo(dtype).max), dtype)
    write_picture(path, Picture(pixels))
    return pixels


def tensor(pixels):
    return torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]


def test_the_whole_chain_by_hand(tmp_path):
    """Cut to a multiple, bicubic LR rounded to 8 bit, output clamped and rounded, border of the scale left out."""
    hr = tensor(write(tmp_path / "a.png"))[..., :30, :26]
    lr = (imresize(hr / 255, scale=0.5) * 255).round().clamp(0, 255) / 255
    sr = ((nearest(lr) * 1.31 - 0.1003).clamp(0, 1) * 255).round()
    seen = []
    result = evaluate_set(
        lambda x: nearest(x) * 1.31 - 0.1003,
        "mine",
        [tmp_path / "a.png"],
        scale=2,
        device=CPU,
        on_image=lambda *image: seen.append(image),
    )
    assert result.images["a"] == pytest.approx(scores(sr, hr, 2), abs=1e-4)
    assert result.mean == result.images["a"]
    name, *images = seen[0]
    assert name == "a"
    for image, expected in zip(images, (lr, sr / 255, hr / 255), strict=True):
        assert image.dtype == torch.float32
        assert torch.allclose(image.double(), expected, atol=1e-6)


def test_crop_can_be_chosen(tmp_path):
    write(tmp_path / "a.png")
    by_crop = [
        evaluate_set(nearest, "x", [tmp_path / "a.png"], scale=2, device=CPU, border_px=crop).mean["psnr_y"]
        for crop in (None, 2, 5)
    ]
    assert by_crop[0] == by_crop[1] != by_crop[2]


def test_mean_is_over_images_not_pixels(tmp_path):
    paths = [tmp_path / "small.png", tmp_path / "large.png"]
    write(paths[0], 20, 20, seed=1)
    write(paths[1], 80, 60, seed=2)
    notes = []
    result = evaluate_set(bicubic_upscaler(2), "x", paths, scale=2, device=CPU, advance=lambda note: notes.append(note))
    assert notes == list(result.images) == ["small", "large"]
    for key, mean in result.mean.items():
        assert mean == pytest.approx((result.images["small"][key] + result.images["large"][key]) / 2)


def test_gray_counts_as_three_equal_channels(tmp_path):
    gray = write(tmp_path / "gray.png", channels=1)
    write_picture(tmp_path / "rgb.png", Picture(gray.repeat(3, axis=2)))
    images = evaluate_set(
        bicubic_upscaler(2), "x", [tmp_path / "gray.png", tmp_path / "rgb.png"], scale=2, device=CPU
    ).images
    assert images["gray"] == images["rgb"]
    # studio range: 219 of 255 levels
    assert images["gray"]["psnr_y"] - images["gray"]["psnr_rgb"] == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)


def test_deep_pictures_are_judged_in_8_bit(tmp_path):
    deep = write(tmp_path / "deep.png", dtype=np.uint16)
    write_picture(tmp_path / "shallow.png", Picture(np.floor(deep / 65535 * 255 + 0.5).astype(np.uint8)))
    images = evaluate_set(
        bicubic_upscaler(2), "x", [tmp_path / "deep.png", tmp_path / "shallow.png"], scale=2, device=CPU
    ).images
    assert images["deep"] == images["shallow"]


def test_identical_images_are_infinite_in_memory_and_null_in_json(tmp_path):
    black = np.zeros((20, 20, 3), np.uint8)
    write_picture(tmp_path / "black.png", Picture(black))
    write(tmp_path / "a.png")
    result = evaluate_set(nearest, "x", [tmp_path / "black.png", tmp_path / "a.png"], scale=2, device=CPU)
    assert result.images["black"]["psnr_y"] == math.inf
    assert result.mean["psnr_y"] == math.inf
    assert math.isfinite(result.mean["ssim_y"])
    text = json.dumps(result.as_json(), allow_nan=False)
    assert json.loads(text)["images"]["black"] == {"psnr_y": None, "ssim_y": 1.0, "psnr_rgb": None, "ssim_rgb": 1.0}
    assert json.loads(text)["mean"]["psnr_rgb"] is None
    assert json.loads(text)["images"]["a"] == result.images["a"]


def test_lr_from_files(tmp_path):
    write(tmp_path / "hr" / "a.png", 31, 26)
    lr = write(tmp_path / "lr" / "ax2.png", 15, 13, seed=5)
    paths = [tmp_path / "hr" / "a.png"]
    given = []
    evaluate_set(
        lambda x: given.append(x) or nearest(x),
        "x",
        paths,
        scale=2,
        lr_paths=pair_lr(paths, tmp_path / "lr", 2),
        device=CPU,
    )
    assert torch.allclose(given[0].double(), tensor(lr) / 255, atol=1e-7)


def test_no_gradient_is_kept(tmp_path):
    write(tmp_path / "a.png")
    weight = torch.ones(1, requires_grad=True)
    seen = []
    evaluate_set(lambda x: seen.append(nearest(x) * weight) or seen[0], "x", [tmp_path / "a.png"], scale=2, device=CPU)
    assert not seen[0].requires_grad


@pytest.mark.parametrize(
    ("upscale", "message"),
    [
        (
            lambda x: functional.interpolate(x, scale_factor=4),
            "expected an output of shape [1, 3, 30, 26] for an input of [1, 3, 15, 13], got [1, 3, 60, 52]; "
            "is this a model for x2?",
        ),
        (lambda x: nearest(x) / 0, "the model's output has NaN or infinite values; the model is broken."),
    ],
)
def test_wrong_outputs_are_told(tmp_path, upscale, message):
    write(tmp_path / "a.png")
    with pytest.raises(InputError) as error:
        evaluate_set(upscale, "x", [tmp_path / "a.png"], scale=2, device=CPU)
    assert str(error.value) == f"{tmp_path / 'a.png'}: {message}"


def test_sizes_that_do_not_fit_are_told(tmp_path):
    path = tmp_path / "a.png"
    write(path, 20, 13)
    with pytest.raises(InputError) as error:
        evaluate_set(bicubic_upscaler(2), "x", [path], scale=2, device=CPU)
    assert str(error.value) == (
        f"{path}: ssim: an image of 12x20 px less 2 px on every side is too small, 11x11 px must be left; "
        "leave the image out or crop less."
    )
    lr = tmp_path / "lr.png"
    write(lr, 5, 6)
    with pytest.raises(InputError) as error:
        evaluate_set(bicubic_upscaler(2), "x", [path], scale=2, lr_paths=[lr], device=CPU)
    assert str(error.value) == (
        f"{lr}: expected 6x10 px, 1/2 of a.png, got 6x5 px; check --scale and that both folders belong together."
    )
    with pytest.raises(InputError, match=r"^evaluate: x has 1 HR pictures but 2 LR pictures\.$"):
        evaluate_set(bicubic_upscaler(2), "x", [path], scale=2, lr_paths=[lr, lr], device=CPU)
    with pytest.raises(InputError, match=r"^evaluate: the set x has no pictures\.$"):
        evaluate_set(bicubic_upscaler(2), "x", [], scale=2, device=CPU)
    write(path, 3, 3)
    with pytest.raises(InputError, match=r"a\.png: mod_crop: "):
        evaluate_set(bicubic_upscaler(4), "x", [path], scale=4, device=CPU)


def test_names(tmp_path):
    assert image_names([tmp_path / "b.png", tmp_path / "a.jpg"]) == ["b", "a"]
    paths = [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", tmp_path / "y" / "a.jpg"]
    assert image_names(paths) == ["x/a.png", "y/a.png", "y/a.jpg"]


def test_pairs(tmp_path):
    hr = [tmp_path / name for name in ("b.png", "a.png", "c.png")]
    for name in ("ax2.png", "b.jpg", "c_x2.png", "d.png"):
        write(tmp_path / "lr" / name)
    assert [p.name for p in pair_lr(hr, tmp_path / "lr", 2)] == ["b.jpg", "ax2.png", "c_x2.png"]
    with pytest.raises(InputError) as error:
        pair_lr(hr, tmp_path / "lr", 3)
    assert str(error.value) == (
        f"{tmp_path / 'lr'}: expected the x3 input of a.png under the name a or ax3, there is none among 4 pictures; "
        "name the folder that belongs to these HR pictures."
    )


def test_sets(tmp_path):
    for name in ("bench/Set5/a.png", "bench/Set14/b.png", "bench/Set14/deep/c.png", "mine/d.png", "mine/sub/e.png"):
        write(tmp_path / name)
    found = find_sets([f"{tmp_path}/bench", f"own={tmp_path}/mine"])
    names = {name: [p.name for p in paths] for name, paths in found.items()}
    assert names == {"Set14": ["b.png", "c.png"], "Set5": ["a.png"], "own": ["d.png", "e.png"]}
    assert list(find_sets([f"v={tmp_path}/bench"])) == ["v/Set14", "v/Set5"]
    assert list(find_sets([f"{tmp_path}/mine/"])) == ["mine"]
    with pytest.raises(InputError) as error:
        find_sets([f"{tmp_path}/mine", f"mine={tmp_path}/bench/Set5"])
    assert str(error.value) == (
        f"evaluate: two sets are called mine; give one another name with --data NAME={tmp_path / 'bench' / 'Set5'}."
    )
    with pytest.raises(InputError, match="expected a folder of pictures"):
        find_sets([f"{tmp_path}/nothing"])


def test_protocol_is_stated():
    assert protocol(3)["border_px"] == 3
    assert protocol(3, 0)["border_px"] == 0
    assert protocol(3)["lr"].startswith("bicubic 1/3 with antialiasing")
    assert protocol(3, None, "my/lr")["lr"] == "my/lr"


def test_scores_of_a_set_do_not_change_with_the_order_of_summation():
    rows = {str(k): {"psnr_y": 30 + 0.1 * k} for k in range(7)}
    assert SetScores("x", rows).mean == SetScores("x", dict(reversed(rows.items()))).mean
