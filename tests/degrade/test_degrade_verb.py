"""`selfsr degrade`: files, names, saved parameters, the contact sheet, and errors."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from selfsr import cli
from selfsr.data.spec import PairsSpec
from selfsr.degrade.files import PARAMETERS, degrade_files, plan_jobs, read_hr, sample_lr
from selfsr.degrade.presets import get_preset
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import list_images

runner = CliRunner()


def photo(height: int, width: int, seed: int) -> np.ndarray:
    image = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    return (np.clip(cv2.GaussianBlur(image, (0, 0), 3) * 4 - 1.5, 0, 1) * 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    write_image(folder / "a.png", DecodedImage(photo(50, 67, 0)))
    write_image(folder / "deep" / "b.png", DecodedImage(photo(48, 64, 1).astype(np.uint16) * 257))
    write_image(folder / "gray.jpg", DecodedImage(photo(64, 48, 2)[..., :1]))
    return folder


def run(*arguments) -> tuple[int, str]:
    result = runner.invoke(cli.app, ["degrade", *map(str, arguments)])
    if isinstance(result.exception, InputError):
        return 2, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_degrade_writes_the_lr_folder_of_pairs(photos, tmp_path):
    out = tmp_path / "lr"
    assert run(photos, "-o", out, "--preset", "bsrgan_ssl")[0] == 0
    assert set(files(out)) == {"ax4.png", "deep/bx4.png", "grayx4.png"}
    pixels = read_image(out / "ax4.png").pixels
    assert (pixels.shape, pixels.dtype) == ((12, 16, 3), np.uint8)
    data = PairsSpec(kind="pairs", hr=photos, lr=out).build(scale=4, crop_px=48)
    assert len(data) == 3


def test_saved_parameters_reproduce_the_images(photos, tmp_path):
    out = tmp_path / "lr"
    run(photos, "-o", out, "--preset", "real_esrgan", "--scale", 2, "--seed", 9)
    lines = [json.loads(line) for line in (out / PARAMETERS).read_text().splitlines()]
    assert [line["file"] for line in lines] == ["ax2.png", "deep/bx2.png", "grayx2.png"]
    spec = get_preset("real_esrgan")
    for line in lines:
        assert (line["seed"], line["scale"], line["draw"]) == (9, 2, 1)
        image = read_hr(photos / line["source"], spec, 2)
        lr, plan = sample_lr(image, spec, line["source"], 1, scale=2, seed=9)
        assert [step["step"] for step in line["steps"]] == [step.name for step in plan]
        written = read_image(out / line["file"]).pixels
        assert np.abs(written / 255 - lr).max() <= 0.5 / 255 + 1e-6


def test_a_draw_depends_on_name_and_seed_only(photos, tmp_path):
    run(photos, "-o", tmp_path / "one", "--preset", "bsrgan")
    run(photos, "-o", tmp_path / "again", "--preset", "bsrgan")
    run(photos, "-o", tmp_path / "other", "--preset", "bsrgan", "--seed", 2)
    first = files(tmp_path / "one")
    assert files(tmp_path / "again") == first
    assert not set(files(tmp_path / "other").values()) & set(first.values())
    (photos / "a.png").unlink()
    run(photos, "-o", tmp_path / "fewer", "--preset", "bsrgan")
    fewer = files(tmp_path / "fewer")
    assert fewer == {name: first[name] for name in ("deep/bx4.png", "grayx4.png")}


def test_per_image_writes_one_lr_folder_for_each_draw(photos, tmp_path):
    out = tmp_path / "lr"
    run(photos, "-o", out, "--preset", "ssl_test", "--per-image", 3)
    assert sorted(path.name for path in out.iterdir()) == ["1", "2", "3", PARAMETERS]
    draws = [files(out / str(number)) for number in (1, 2, 3)]
    assert [set(draw) for draw in draws] == [{"ax4.png", "deep/bx4.png", "grayx4.png"}] * 3
    assert len({content for draw in draws for content in draw.values()}) == 9
    for number in (1, 2, 3):
        PairsSpec(kind="pairs", hr=photos, lr=out / str(number)).build(scale=4, crop_px=48)
    run(photos, "-o", tmp_path / "one", "--preset", "ssl_test")
    assert files(tmp_path / "one") == draws[0]


def test_contact_sheet_replaces_a_file_only_with_overwrite(photos, tmp_path):
    sheet = tmp_path / "photo.png"
    sheet.write_bytes(b"a photo")
    arguments = [photos, "-o", tmp_path / "lr", "--preset", "ssl_test", "--contact-sheet", sheet]
    code, output = run(*arguments)
    assert code != 0
    assert f"--contact-sheet: expected a new file, got {sheet}, which exists; choose another name, or add" in output
    assert sheet.read_bytes() == b"a photo"
    assert not (tmp_path / "lr").exists()
    assert run(*arguments, "--overwrite")[0] == 0
    assert read_image(sheet).pixels.shape[1] == 5 * 264 + 8


def test_contact_sheet_shows_hr_and_the_files(photos, tmp_path):
    sheet = tmp_path / "sheet.png"
    code, output = run(photos, "-o", tmp_path / "lr", "--preset", "bsrgan_ssl_test", "--contact-sheet", sheet)
    assert code == 0
    assert str(sheet) in output
    pixels = read_image(sheet).pixels
    assert pixels.shape == (3 * (256 + 44 + 8) + 8, 5 * 264 + 8, 3)
    lr = read_image(tmp_path / "lr" / "ax4.png").pixels  # 12 x 16; the crop is 48 x 48 from column 8 on
    cell = cv2.resize(lr[:, 2:14], (256, 256), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(pixels[8:264, 8 + 264 : 8 + 264 + 256], cell)
    hr = read_image(photos / "a.png").pixels[:48, 8:56]
    assert np.array_equal(pixels[8:264, 8:264], cv2.resize(hr, (256, 256), interpolation=cv2.INTER_NEAREST))


def test_recipe_option_uses_the_recipes_degradation_and_scale(photos, tmp_path):
    document = yaml.safe_load((Path(cli.__file__).parents[1] / "recipe" / "shipped" / "small_edsr_x2.yaml").read_text())
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(document))
    assert (
        f"expected data.degrade in {path}, got bicubic LR; pass a preset with --preset."
        in run(photos, "-o", tmp_path / "x", "--recipe", path)[1]
    )
    document["data"]["degrade"] = {"kind": "bsrgan", "preset": "bsrgan_ssl", "jpeg_quality": [11, 12]}
    path.write_text(yaml.safe_dump(document))
    assert run(photos, "-o", tmp_path / "lr", "--recipe", path)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "lr" / PARAMETERS).read_text().splitlines()]
    assert {line["scale"] for line in lines} == {2}
    assert {step["quality"] for line in lines for step in line["steps"] if step["step"] == "jpeg"} <= {11, 12}
    code, output = run(photos, "-o", tmp_path / "x", "--recipe", path, "--scale", 3)
    assert code == 2
    assert f"degrade: expected a scale of {path}, 2, got 3; pass it with --scale." in output
    assert run(photos, "-o", tmp_path / "x", "--recipe", path, "--scale", 2)[0] == 0
    assert files(tmp_path / "x") == files(tmp_path / "lr")


def test_wrong_options_are_refused_before_anything_is_written(photos, tmp_path):
    out = tmp_path / "lr"
    for arguments, expected in (
        ((photos, "-o", out), "expected exactly one of --preset and --recipe, got none; presets are real_esrgan, "),
        ((photos, "-o", out, "--preset", "bsrgn"), "did you mean 'bsrgan'?"),
        (
            (photos, "-o", photos, "--preset", "bsrgan"),
            f"expected an output folder other than the input, got {photos} for both; pass another one with -o.",
        ),
        ((tmp_path / "photo", "-o", out, "--preset", "bsrgan"), "did you mean"),
        ((photos, "-o", out, "--preset", "bsrgan", "--contact-sheet", tmp_path / "s.gif"), "suffix must be one of"),
        (
            (photos, "-o", out, "--preset", "bsrgan", "--contact-sheet", photos / "s.png"),
            f"expected a contact sheet outside of {photos}, got {photos}/s.png; write it elsewhere.",
        ),
    ):
        code, error = run(*arguments)
        assert code == 2
        assert expected in error
        assert not out.exists()
    write_image(photos / "a.jpg", DecodedImage(photo(48, 48, 5)))
    assert (
        f"expected different names, got 2 images that would be written to {out}/ax4.png; rename them."
        in run(photos, "-o", out, "--preset", "bsrgan")[1]
    )


def test_existing_images_are_replaced_with_overwrite_only(photos, tmp_path):
    out = tmp_path / "lr"
    run(photos, "-o", out, "--preset", "bsrgan")
    before = files(out)
    code, output = run(photos, "-o", out, "--preset", "bsrgan", "--seed", 2)
    assert code == 2
    assert "ax4.png exists already (and 2 more); add --overwrite to replace it." in output
    assert files(out) == before
    assert run(photos, "-o", out, "--preset", "bsrgan", "--seed", 2, "--overwrite")[0] == 0
    assert not set(files(out).values()) & set(before.values())


def test_a_bad_file_is_reported_and_the_others_are_made(photos, tmp_path):
    (photos / "bad.png").write_bytes(b"not an image")
    write_image(photos / "tiny.png", DecodedImage(photo(3, 40, 6)))
    code, output = run(photos, "-o", tmp_path / "lr", "--preset", "bsrgan", "--contact-sheet", tmp_path / "s.png")
    assert code == 1
    assert "3 of 5 images written" in output
    assert "2 of 5 images failed" in output
    assert len(files(tmp_path / "lr")) == 3
    assert len((tmp_path / "lr" / PARAMETERS).read_text().splitlines()) == 3
    assert read_image(tmp_path / "s.png").height == 3 * 308 + 8


def test_an_output_folder_inside_the_input_is_not_read(photos, tmp_path):
    out = photos / "lr"
    assert run(photos, "-o", out, "--preset", "bsrgan")[0] == 0
    assert run(photos, "-o", out, "--preset", "bsrgan", "--overwrite")[0] == 0
    assert len(list_images(out)) == 3


def test_jobs_run_in_order_and_report_progress(photos, tmp_path):
    jobs = plan_jobs(photos, tmp_path / "lr", scale=4, per_image=2)
    assert [(job.name, job.draw) for job in jobs[:3]] == [("a.png", 1), ("a.png", 2), ("deep/b.png", 1)]
    calls = []
    result = degrade_files(
        *(jobs, tmp_path / "lr", get_preset("bsrgan")), scale=4, seed=1, advance=lambda: calls.append(1)
    )
    assert (result.written, result.failures, len(calls)) == (6, [], 6)
