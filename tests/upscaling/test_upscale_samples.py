"""`selfsr upscale` with a model that samples: seeds, samples, steps, color fixes, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from factories import texture
from sampled_nets import make_net
from selfsr.cli import app
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import save_weights

SOFTWARE = 0x0131


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(tmp_path / "net.safetensors", make_net(), {})
    save_weights(tmp_path / "edsr.safetensors", EdsrSpec(features=8, blocks=1).build(2), {})
    for index in range(2):
        write_image(tmp_path / "in" / f"p{index}.png", DecodedImage(texture(index, 24, 20)))
    return tmp_path


def run(folder: Path, *options: str, model: str = "net", source: str = "in", out: str = "out") -> tuple[int, str]:
    command = ["upscale", str(folder / source), "-m", str(folder / f"{model}.safetensors"), "-o", str(folder / out)]
    result = CliRunner().invoke(app, [*command, *options], catch_exceptions=True)
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


def pixels(path: Path) -> np.ndarray:
    return read_image(path).pixels.astype(int)


def test_one_seed_gives_one_image_whatever_the_other_files(folder: Path) -> None:
    assert run(folder, "--seed", "7")[0] == 0
    assert run(folder, "--seed", "7", source="in/p1.png", out="alone")[0] == 0
    assert np.array_equal(pixels(folder / "out/p1.png"), pixels(folder / "alone/p1.png"))
    assert run(folder, "--seed", "8", out="other")[0] == 0
    assert np.abs(pixels(folder / "out/p1.png") - pixels(folder / "other/p1.png")).mean() > 1


def test_samples_have_consecutive_seeds_and_numbered_names(folder: Path) -> None:
    assert run(folder, "--seed", "7", "--samples", "2")[0] == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        f"p{i}_s{k}.png" for i in (0, 1) for k in (0, 1)
    ]
    assert run(folder, "--seed", "8", out="next")[0] == 0
    assert np.array_equal(pixels(folder / "out/p0_s1.png"), pixels(folder / "next/p0.png"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_the_file_names_seed_steps_and_color_fix(folder: Path, suffix: str) -> None:
    options = ("--seed", "7", "--steps", "3", "--color-fix", "adain", "--format", suffix)
    assert run(folder, *options)[0] == 0
    with Image.open(folder / f"out/p0.{suffix}") as image:
        text = image.tag_v2[SOFTWARE] if suffix == "tiff" else image.getexif()[SOFTWARE]
    assert "ResShift x2, seed 7, 3 steps, color fix adain" in text


def test_a_random_seed_is_printed_and_repeats(folder: Path) -> None:
    code, text = run(folder, "--seed", "random")
    assert code == 0
    seed = text.split("Seed ")[1].split()[0]
    assert run(folder, "--seed", seed, out="again")[0] == 0
    assert np.array_equal(pixels(folder / "out/p0.png"), pixels(folder / "again/p0.png"))


def test_adain_has_the_moments_of_the_input_over_the_complete_image(folder: Path) -> None:
    source = pixels(folder / "in/p0.png")
    assert run(folder, "--color-fix", "adain", source="in/p0.png", out="adain")[0] == 0
    found = pixels(folder / "adain/p0.png")
    # The reference is the input enlarged by bicubic, which keeps the mean; clipping and rounding move it a little.
    assert np.abs(found.mean(axis=(0, 1)) - source.mean(axis=(0, 1))).max() < 3


def test_alpha_and_gray_are_kept(folder: Path) -> None:
    alpha = np.zeros((24, 20), np.uint8)
    alpha[:, 10:] = 255
    write_image(folder / "rgba/a.png", DecodedImage(texture(1, 24, 20), alpha))
    write_image(folder / "gray/g.png", DecodedImage(texture(1, 24, 20)[..., :1]))
    assert run(folder, source="rgba", out="rgba_x2")[0] == 0
    image = read_image(folder / "rgba_x2/a.png")
    assert image.alpha is not None
    assert image.alpha.shape == (48, 40)
    assert (image.alpha[:, :16] == 0).all()
    assert (image.alpha[:, 24:] == 255).all()
    assert run(folder, source="gray", out="gray_x2")[0] == 0
    with Image.open(folder / "gray_x2/g.png") as file:
        assert file.mode == "L"


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        (("--seed", "x"), "net", "seed: expected a whole number of at most 18 digits or random, got 'x'; use one"),
        (("--seed", "-1"), "net", "seed: expected a whole number of at most 18 digits or random, got '-1'; use one"),
        (("--steps", "9"), "net", "steps: expected 1 to 4, the steps that the network was trained with, got 9"),
        (("--color-fix", "red"), "net", "color fix: expected one of wavelet, adain, ycbcr, none, got 'red'"),
        (("--self-ensemble",), "net", "the self-ensemble is for models without random numbers"),
        (("--seed", "1"), "edsr", "expected no --seed with EDSR, which has one output for each input"),
        (("--samples", "2"), "edsr", "expected no --samples with EDSR, which has one output for each input"),
        (("--color-fix", "none"), "edsr", "expected no --color-fix with EDSR"),
        (("--steps", "1"), "edsr", "expected no --steps with EDSR"),
    ],
)
def test_what_does_nothing_is_refused_before_anything_is_written(
    folder: Path, options: tuple[str, ...], model: str, message: str
) -> None:
    code, text = run(folder, *options, model=model)
    assert code != 0
    assert message in text
    assert not (folder / "out").exists()
