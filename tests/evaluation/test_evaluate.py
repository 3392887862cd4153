"""Evaluation of image sets: the protocol, names, pairs and errors."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.evaluation.benchmark import SetScores, describe_protocol, evaluate_set, make_bicubic_upscaler
from selfsr.evaluation.metrics import score_image
from selfsr.evaluation.sets import find_sets, name_images
from selfsr.images.files import DecodedImage, write_image
from selfsr.images.pairing import pair_lr
from selfsr.images.resize import imresize

CPU = torch.device("cpu")


def nearest(lr):
    return functional.interpolate(lr, scale_factor=2)


def write(path, height=31, width=26, channels=3, dtype=np.uint8, seed=0):
    """Write a smooth random image; return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.rand(1, channels, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smooth = imresize(noise, size=(height, width))[0].clamp(0, 1).permute(1, 2, 0).numpy()
    pixels = np.ascontiguousarray(np.round(smooth * np.iinfo(dtype).max), dtype)
    write_image(path, DecodedImage(pixels))
    return pixels


def tensor(pixels):
    return torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]


def test_evaluate_set_agrees_with_steps_by_hand(tmp_path):
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
    assert result.images["a"] == pytest.approx(score_image(sr, hr, 2), abs=1e-4)
    assert result.mean == result.images["a"]
    name, *images = seen[0]
    assert name == "a"
    for image, expected in zip(images, (lr, sr / 255, hr / 255), strict=True):
        assert image.dtype == torch.float32
        assert torch.allclose(image.double(), expected, atol=1e-6)


def test_evaluate_set_with_border_px_changes_scores(tmp_path):
    write(tmp_path / "a.png")
    by_crop = [
        evaluate_set(nearest, "x", [tmp_path / "a.png"], scale=2, device=CPU, border_px=crop).mean["psnr_y"]
        for crop in (None, 2, 5)
    ]
    assert by_crop[0] == by_crop[1] != by_crop[2]


def test_set_scores_mean_is_over_images_not_pixels(tmp_path):
    paths = [tmp_path / "small.png", tmp_path / "large.png"]
    write(paths[0], 20, 20, seed=1)
    write(paths[1], 80, 60, seed=2)
    notes = []
    result = evaluate_set(
        make_bicubic_upscaler(2), "x", paths, scale=2, device=CPU, advance=lambda note: notes.append(note)
    )
    assert notes == list(result.images) == ["small", "large"]
    for key, mean in result.mean.items():
        assert mean == pytest.approx((result.images["small"][key] + result.images["large"][key]) / 2)


def test_gray_counts_as_three_equal_channels(tmp_path):
    gray = write(tmp_path / "gray.png", channels=1)
    write_image(tmp_path / "rgb.png", DecodedImage(gray.repeat(3, axis=2)))
    images = evaluate_set(
        make_bicubic_upscaler(2), "x", [tmp_path / "gray.png", tmp_path / "rgb.png"], scale=2, device=CPU
    ).images
    assert images["gray"] == images["rgb"]
    # studio range: 219 of 255 levels
    assert images["gray"]["psnr_y"] - images["gray"]["psnr_rgb"] == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)


def test_evaluate_set_rounds_16_bit_to_8_bit(tmp_path):
    deep = write(tmp_path / "deep.png", dtype=np.uint16)
    write_image(tmp_path / "shallow.png", DecodedImage(np.floor(deep / 65535 * 255 + 0.5).astype(np.uint8)))
    images = evaluate_set(
        make_bicubic_upscaler(2), "x", [tmp_path / "deep.png", tmp_path / "shallow.png"], scale=2, device=CPU
    ).images
    assert images["deep"] == images["shallow"]


def test_psnr_of_identical_images_is_infinite_and_null_in_json(tmp_path):
    black = np.zeros((20, 20, 3), np.uint8)
    write_image(tmp_path / "black.png", DecodedImage(black))
    write(tmp_path / "a.png")
    result = evaluate_set(nearest, "x", [tmp_path / "black.png", tmp_path / "a.png"], scale=2, device=CPU)
    assert result.images["black"]["psnr_y"] == math.inf
    assert result.mean["psnr_y"] == math.inf
    assert math.isfinite(result.mean["ssim_y"])
    text = json.dumps(result.as_json(), allow_nan=False)
    assert json.loads(text)["images"]["black"] == {"psnr_y": None, "ssim_y": 1.0, "psnr_rgb": None, "ssim_rgb": 1.0}
    assert json.loads(text)["mean"]["psnr_rgb"] is None
    assert json.loads(text)["images"]["a"] == result.images["a"]


def test_evaluate_set_with_lr_paths_uses_them(tmp_path):
    write(tmp_path / "hr" / "a.png", 31, 26)
    lr = write(tmp_path / "lr" / "ax2.png", 15, 13, seed=5)
    paths = [tmp_path / "hr" / "a.png"]
    given = []
    evaluate_set(
        lambda x: given.append(x) or nearest(x),
        "x",
        paths,
        scale=2,
        lr_paths=pair_lr(tmp_path / "hr", paths, tmp_path / "lr", 2),
        device=CPU,
    )
    assert torch.allclose(given[0].double(), tensor(lr) / 255, atol=1e-7)


def test_evaluate_set_keeps_no_gradient(tmp_path):
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
            "use a model for x2.",
        ),
        (lambda x: nearest(x) / 0, "expected a finite output, got NaN or infinity; use another model."),
    ],
)
def test_evaluate_set_refuses_wrong_outputs(tmp_path, upscale, message):
    write(tmp_path / "a.png")
    with pytest.raises(InputError) as error:
        evaluate_set(upscale, "x", [tmp_path / "a.png"], scale=2, device=CPU)
    assert str(error.value) == f"{tmp_path / 'a.png'}: {message}"


def test_evaluate_set_refuses_wrong_sizes_and_counts(tmp_path):
    path = tmp_path / "a.png"
    write(path, 20, 13)
    with pytest.raises(InputError) as error:
        evaluate_set(make_bicubic_upscaler(2), "x", [path], scale=2, device=CPU)
    assert str(error.value) == (
        f"{path}: ssim: at least 11 x 11 pixels inside the border are needed, got an image of 20 x 12 (height x width) "
        "with a border of 2; leave it out or use a smaller border."
    )
    lr = tmp_path / "lr.png"
    write(lr, 5, 6)
    with pytest.raises(InputError) as error:
        evaluate_set(make_bicubic_upscaler(2), "x", [path], scale=2, lr_paths=[lr], device=CPU)
    assert str(error.value) == (
        f"{lr}: expected 10 x 6 pixels (height x width) for an HR image of 20 x 13 at scale 2, got 5 x 6; "
        f"check the scale, and that it belongs to {path}."
    )
    with pytest.raises(
        InputError,
        match=r"^evaluate: expected 1 LR images for the set x, got 2; pass one LR image for each HR image\.$",
    ):
        evaluate_set(make_bicubic_upscaler(2), "x", [path], scale=2, lr_paths=[lr, lr], device=CPU)
    with pytest.raises(
        InputError, match=r"^evaluate: expected images in the set x, got none; pass a folder with images\.$"
    ):
        evaluate_set(make_bicubic_upscaler(2), "x", [], scale=2, device=CPU)
    write(path, 3, 3)
    with pytest.raises(InputError, match=r"a\.png: mod_crop: "):
        evaluate_set(make_bicubic_upscaler(4), "x", [path], scale=4, device=CPU)


def test_name_images_uses_paths_if_stems_are_equal(tmp_path):
    assert name_images([tmp_path / "b.png", tmp_path / "a.jpg"]) == ["b", "a"]
    paths = [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", tmp_path / "y" / "a.jpg"]
    assert name_images(paths) == ["x/a.png", "y/a.png", "y/a.jpg"]


def test_find_sets_splits_folders_and_takes_names(tmp_path):
    for name in ("bench/Set5/a.png", "bench/Set14/b.png", "bench/Set14/deep/c.png", "mine/d.png", "mine/sub/e.png"):
        write(tmp_path / name)
    sets = find_sets([f"{tmp_path}/bench", f"own={tmp_path}/mine"])
    names = {name: [path.name for path in image_set.paths] for name, image_set in sets.items()}
    assert names == {"Set14": ["b.png", "c.png"], "Set5": ["a.png"], "own": ["d.png", "e.png"]}
    assert [image_set.folder for image_set in sets.values()] == [
        tmp_path / "bench" / "Set14",
        tmp_path / "bench" / "Set5",
        tmp_path / "mine",
    ]
    assert list(find_sets([f"v={tmp_path}/bench"])) == ["v/Set14", "v/Set5"]
    assert list(find_sets([f"{tmp_path}/mine/"])) == ["mine"]
    with pytest.raises(InputError) as error:
        find_sets([f"{tmp_path}/mine", f"mine={tmp_path}/bench/Set5"])
    assert str(error.value) == (
        "evaluate: expected sets of different names, got two called mine; "
        f"name one of them with --data NAME={tmp_path / 'bench' / 'Set5'}."
    )
    with pytest.raises(InputError, match="expected a folder of images"):
        find_sets([f"{tmp_path}/nothing"])


def test_a_list_of_images_is_a_set_with_the_name_of_its_file(tmp_path):
    for name in ("photos/a.png", "photos/deep/b.png", "photos/c.png"):
        write(tmp_path / name)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "held_out.txt").write_text("../photos/deep/b.png\n../photos/a.png\n")
    sets = find_sets([f"{tmp_path}/runs/held_out.txt", f"mine={tmp_path}/runs/held_out.txt"])
    assert list(sets) == ["held_out", "mine"]
    for image_set in sets.values():
        assert [path.name for path in image_set.paths] == ["a.png", "b.png"]
        assert image_set.folder == tmp_path / "photos", "the folder below which the images have their names"


def test_describe_protocol_has_border_and_lr():
    assert describe_protocol(3)["border_px"] == 3
    assert describe_protocol(3, 0)["border_px"] == 0
    assert describe_protocol(3)["lr"].startswith("bicubic 1/3 with antialiasing")
    assert describe_protocol(3, None, "my/lr")["lr"] == "my/lr"


def test_set_scores_mean_does_not_depend_on_the_order():
    rows = {str(k): {"psnr_y": 30 + 0.1 * k} for k in range(7)}
    assert SetScores("x", rows).mean == SetScores("x", dict(reversed(rows.items()))).mean
