"""Sub-images: which windows, which sizes, and that a stopped call goes on."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from selfsr.cli.data import app
from selfsr.data import prepare as module
from selfsr.data.prepare import Cutting, prepare, resized, sizes, windows
from selfsr.errors import InputError
from selfsr.images.files import Picture, read_picture, write_picture

SMALL = Cutting(crop_px=32, step_px=16, factors=(0.75, 0.5), shortest_px=32)


def noise(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return (
        np.random.default_rng(height + width).integers(0, top, (height, width, channels), endpoint=True).astype(dtype)
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_picture(folder / "ax4.png", Picture(noise(50, 64)))
    write_picture(folder / "gray.png", Picture(noise(20, 40, 1)))
    write_picture(folder / "deep.png", Picture(noise(40, 33, dtype=np.uint16)))
    return folder


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.suffix == ".png")


@given(length=st.integers(1, 400), crop=st.integers(1, 90), step=st.integers(1, 90))
def test_windows_cover_the_side_without_leaving_it(length: int, crop: int, step: int) -> None:
    step = min(step, crop)
    starts = windows(length, crop, step)
    covered = {pixel for start in starts for pixel in range(start, start + crop)}
    assert covered == (set(range(length)) if length >= crop else set())
    assert starts == sorted(set(starts))
    assert [b - a for a, b in itertools.pairwise(starts)][:-1] == [step] * max(0, len(starts) - 2)


def test_published_windows_and_sizes() -> None:
    assert windows(1404, 512, 256) == [0, 256, 512, 768, 892]
    assert windows(1024, 512, 256) == [0, 256, 512]
    # 0.6 of 1404 is 842.4 and a third of 2040 is 680; a third of 1404, 468, no longer holds the crop.
    assert sizes(1404, 2040, Cutting()) == [
        ("", 1404, 2040),
        ("T0", 1053, 1530),
        ("T1", 842, 1224),
        ("S", 512, 743),
    ]
    assert sizes(300, 400, Cutting()) == [("S", 512, 682)]
    assert sizes(512, 600, Cutting()) == [("", 512, 600)]


def test_sub_images_are_the_windows_of_each_size(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = prepare(photos, out, SMALL)
    # ax4: 50 x 64 gives 3 x 3 windows, 37 x 48 gives 2 x 2, its half is too small, 32 x 40 gives 1 x 2.
    of_a = [name for name in names(out) if name.startswith("a")]
    assert [sum(name.startswith(stem) for name in of_a) for stem in ("a_s", "aT0_s", "aT1_s", "aS_s")] == [9, 4, 0, 2]
    assert outcome.written == len(names(out))
    assert outcome.failures == outcome.too_small == []
    source = read_picture(photos / "ax4.png").pixels
    np.testing.assert_array_equal(read_picture(out / "a_s006.png").pixels, source[16:48, 32:64])
    reduced = np.asarray(Image.fromarray(source).resize((48, 37), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(read_picture(out / "aT0_s004.png").pixels, reduced[5:37, 16:48])
    assert read_picture(out / "grayS_s001.png").channels == 1
    assert read_picture(out / "deep_s001.png").bits == 16


def test_16_bit_is_resized_as_8_bit_is() -> None:
    pixels = 64 + noise(40, 48) // 2  # Pillow clips 8 bit between rows and columns, which 16 bit is spared
    deep = resized(pixels.astype(np.uint16) * 257, 29, 36)
    assert np.abs(deep / 257.0 - resized(pixels, 29, 36)).max() < 1.01


def test_a_stopped_call_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole, real = tmp_path / "out", tmp_path / "whole", module.read_picture

    def stopped(path: Path) -> Picture:
        if path.stem == "deep":
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(module, "read_picture", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, out, SMALL, threads=1)
    monkeypatch.undo()
    with (out / module.MANIFEST).open("a") as manifest:
        manifest.write('{"picture": "gr')  # killed in the middle of a line
    outcome = prepare(photos, out, SMALL)
    assert outcome.skipped == 1
    prepare(photos, whole, SMALL)
    assert names(out) == names(whole)
    assert prepare(photos, out, SMALL).skipped == 3


def test_a_changed_picture_is_cut_again_and_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(photos, out, SMALL)
    write_picture(photos / "ax4.png", Picture(noise(32, 48)))
    outcome = prepare(photos, out, SMALL)
    assert (outcome.skipped, outcome.written) == (2, 2)
    assert [name for name in names(out) if name.startswith("a")] == ["a_s001.png", "a_s002.png"]


def test_a_damaged_picture_does_not_stop_the_others(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no picture")
    result = CliRunner().invoke(
        app, ["prepare", str(photos), "-o", str(tmp_path / "out"), "--crop", "32", "--own-size-only"]
    )
    assert result.exit_code == 1
    assert "bad.png: expected a readable picture" in result.output
    assert "1 of 4 pictures failed" in result.output
    assert "1 pictures are smaller than the crop" in result.output
    lines = [json.loads(line) for line in (tmp_path / "out" / module.MANIFEST).read_text().splitlines()]
    assert {line["picture"] for line in lines[1:]} == {"ax4", "deep", "gray"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--crop", "32", "--step", "33"], "step must be at most the crop, 32 px"),
        (["--factor", "1.5"], "factors must lie between 0 and 1, got 1.5"),
        (["--crop", "64", "--shortest", "32"], "shortest must be at least the crop, 64 px, got 32"),
        (["--own-size-only", "--factor", "0.5"], "--own-size-only excludes --factor"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    photos: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    if "--step" not in arguments:
        arguments = [*arguments, "--step", "16"]
    result = CliRunner().invoke(app, ["prepare", str(photos), "-o", str(tmp_path / "out"), *arguments])
    assert isinstance(result.exception, InputError)
    assert sentence in str(result.exception)


def test_a_folder_of_other_settings_or_of_other_files_is_refused(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "out", SMALL)
    with pytest.raises(InputError, match=r"other settings \(step_px: 16\)"):
        prepare(photos, tmp_path / "out", Cutting(32, 8, (0.75, 0.5), 32))
    with pytest.raises(InputError, match=r"new, empty or made by this command"):
        prepare(photos, photos, SMALL)


def test_two_pictures_of_one_name_are_refused(photos: Path, tmp_path: Path) -> None:
    write_picture(photos / "more" / "a.jpg", Picture(noise(40, 40)))
    with pytest.raises(
        InputError, match=r"ax4\.png and .*a\.jpg would both be called a_s001\.png|a\.jpg and .*ax4\.png"
    ):
        prepare(photos, tmp_path / "out", SMALL)
