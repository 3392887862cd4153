"""Sub-images: their positions and sizes, and how a stopped call resumes."""

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
from selfsr.data.prepare import SubImageSettings, list_sizes, list_starts, prepare_folder, resize_lanczos
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image

SMALL = SubImageSettings(size_px=32, step_px=16, factors=(0.75, 0.5), shortest_px=32)


def noise(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return (
        np.random.default_rng(height + width).integers(0, top, (height, width, channels), endpoint=True).astype(dtype)
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_image(folder / "ax4.png", DecodedImage(noise(50, 64)))
    write_image(folder / "gray.png", DecodedImage(noise(20, 40, 1)))
    write_image(folder / "deep.png", DecodedImage(noise(40, 33, dtype=np.uint16)))
    return folder


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.suffix == ".png")


@given(length=st.integers(1, 400), crop=st.integers(1, 90), step=st.integers(1, 90))
def test_list_starts_covers_the_side_without_leaving_it(length: int, crop: int, step: int) -> None:
    step = min(step, crop)
    starts = list_starts(length, crop, step)
    covered = {pixel for start in starts for pixel in range(start, start + crop)}
    assert covered == (set(range(length)) if length >= crop else set())
    assert starts == sorted(set(starts))
    assert [b - a for a, b in itertools.pairwise(starts)][:-1] == [step] * max(0, len(starts) - 2)


def test_list_starts_and_list_sizes_are_as_published() -> None:
    assert list_starts(1404, 512, 256) == [0, 256, 512, 768, 892]
    assert list_starts(1024, 512, 256) == [0, 256, 512]
    # 0.6 of 1404 is 842.4 and a third of 2040 is 680; a third of 1404, 468, no longer holds the crop.
    assert list_sizes(1404, 2040, SubImageSettings()) == [
        ("", 1404, 2040),
        ("T0", 1053, 1530),
        ("T1", 842, 1224),
        ("S", 512, 743),
    ]
    assert list_sizes(300, 400, SubImageSettings()) == [("S", 512, 682)]
    assert list_sizes(512, 600, SubImageSettings()) == [("", 512, 600)]


def test_prepare_folder_writes_the_windows_of_each_size(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = prepare_folder(photos, out, SMALL)
    # ax4: 50 x 64 gives 3 x 3 windows, 37 x 48 gives 2 x 2, its half is too small, 32 x 40 gives 1 x 2.
    of_a = [name for name in names(out) if name.startswith("a")]
    assert [sum(name.startswith(stem) for name in of_a) for stem in ("a_s", "aT0_s", "aT1_s", "aS_s")] == [9, 4, 0, 2]
    assert outcome.written == len(names(out))
    assert outcome.failures == outcome.too_small == []
    source = read_image(photos / "ax4.png").pixels
    np.testing.assert_array_equal(read_image(out / "a_s006.png").pixels, source[16:48, 32:64])
    reduced = np.asarray(Image.fromarray(source).resize((48, 37), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(read_image(out / "aT0_s004.png").pixels, reduced[5:37, 16:48])
    assert read_image(out / "grayS_s001.png").channels == 1
    assert read_image(out / "deep_s001.png").bits == 16


def test_resize_lanczos_of_16_bit_agrees_with_8_bit() -> None:
    pixels = 64 + noise(40, 48) // 2  # Pillow clips 8 bit between rows and columns, which 16 bit is spared
    deep = resize_lanczos(pixels.astype(np.uint16) * 257, 29, 36)
    assert np.abs(deep / 257.0 - resize_lanczos(pixels, 29, 36)).max() < 1.01


def test_prepare_folder_resumes_after_a_stop(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole, real = tmp_path / "out", tmp_path / "whole", module.read_image

    def stopped(path: Path) -> DecodedImage:
        if path.stem == "deep":
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(module, "read_image", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare_folder(photos, out, SMALL, threads=1)
    monkeypatch.undo()
    with (out / module.MANIFEST).open("a") as manifest:
        manifest.write('{"image": "gr')  # killed in the middle of a line
    outcome = prepare_folder(photos, out, SMALL)
    assert outcome.skipped == 1
    prepare_folder(photos, whole, SMALL)
    assert names(out) == names(whole)
    assert prepare_folder(photos, out, SMALL).skipped == 3


def test_prepare_folder_cuts_a_changed_image_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_folder(photos, out, SMALL)
    write_image(photos / "ax4.png", DecodedImage(noise(32, 48)))
    outcome = prepare_folder(photos, out, SMALL)
    assert (outcome.skipped, outcome.written) == (2, 2)
    assert [name for name in names(out) if name.startswith("a")] == ["a_s001.png", "a_s002.png"]


def test_data_prepare_skips_a_damaged_image_and_exits_with_1(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    result = CliRunner().invoke(
        app, ["prepare", str(photos), "-o", str(tmp_path / "out"), "--size", "32", "--own-size-only"]
    )
    assert result.exit_code == 1
    assert "bad.png: expected a readable image" in result.output
    assert "1 of 4 images failed" in result.output
    assert "1 images are smaller than a sub-image" in result.output
    lines = [json.loads(line) for line in (tmp_path / "out" / module.MANIFEST).read_text().splitlines()]
    assert {line["image"] for line in lines[1:]} == {"ax4", "deep", "gray"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "32", "--step", "33"], "expected a step of at most the size, 32 px, got 33;"),
        (["--factor", "1.5"], "expected factors between 0 and 1, got 1.5;"),
        (["--size", "64", "--shortest", "32"], "expected a shortest side of at least the size, 64 px, got 32;"),
        (["--own-size-only", "--factor", "0.5"], "expected --own-size-only without --factor"),
    ],
)
def test_data_prepare_refuses_wrong_options(photos: Path, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    if "--step" not in arguments:
        arguments = [*arguments, "--step", "16"]
    result = CliRunner().invoke(app, ["prepare", str(photos), "-o", str(tmp_path / "out"), *arguments])
    assert isinstance(result.exception, InputError)
    assert sentence in str(result.exception)


def test_prepare_folder_refuses_other_settings_and_other_files(photos: Path, tmp_path: Path) -> None:
    prepare_folder(photos, tmp_path / "out", SMALL)
    with pytest.raises(InputError, match=r"with the same settings, got others \(step_px: 16\)"):
        prepare_folder(photos, tmp_path / "out", SubImageSettings(32, 8, (0.75, 0.5), 32))
    with pytest.raises(InputError, match=r"new, empty or made by this command"):
        prepare_folder(photos, photos, SMALL)


def test_prepare_folder_refuses_two_images_of_one_name(photos: Path, tmp_path: Path) -> None:
    write_image(photos / "more" / "a.jpg", DecodedImage(noise(40, 40)))
    with pytest.raises(
        InputError, match=r"ax4\.png and .*a\.jpg, whose sub-images are both called a_s001\.png|a\.jpg and .*ax4\.png"
    ):
        prepare_folder(photos, tmp_path / "out", SMALL)


def test_prepare_folder_never_cuts_its_own_sub_images(photos: Path) -> None:
    out = photos / "sub"
    first = prepare_folder(photos, out, SMALL)
    expected = names(out)
    again = prepare_folder(photos, out, SMALL)
    assert (first.images, again.images, again.skipped, again.written) == (3, 3, 3, 0)
    assert names(out) == expected
    with pytest.raises(InputError, match="expected an output folder other than the input"):
        prepare_folder(out, out, SMALL)
    for path in photos.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="got none outside of"):
        prepare_folder(photos, out, SMALL)


def write_named(folder: Path, *stems: str) -> Path:
    for number, stem in enumerate(stems):
        write_image(folder / f"{stem}.png", DecodedImage(noise(32 + 16 * number, 32)))
    return folder


OWN_SIZE = SubImageSettings(size_px=32, step_px=32, factors=(), shortest_px=None)


@pytest.mark.parametrize(
    ("stems", "expected"),
    [
        (("box2", "box3"), ["box2_s001", "box3_s001", "box3_s002"]),
        (("x2", "x2y", "ax2b"), ["ax2b_s001", "ax2b_s002", "x2_s001", "x2y_s001", "x2y_s002"]),
        (("0001x4", "0002x4"), ["0001_s001", "0002_s001", "0002_s002"]),
        (("0001x4", "0001x2"), ["0001x2_s001", "0001x2_s002", "0001x4_s001"]),
    ],
)
def test_prepare_folder_leaves_out_only_the_ending_of_one_scale(tmp_path: Path, stems, expected) -> None:
    prepare_folder(write_named(tmp_path / "in", *stems), tmp_path / "out", OWN_SIZE)
    assert names(tmp_path / "out") == [f"{name}.png" for name in sorted(expected)]


def test_prepare_folder_names_sub_images_again_where_a_second_scale_comes(tmp_path: Path) -> None:
    source, out = write_named(tmp_path / "in", "box2", "box"), tmp_path / "out"
    (source / "box.png").rename(source / "bow.png")
    prepare_folder(source, out, OWN_SIZE)
    assert names(out) == ["bo_s001.png", "bow_s001.png", "bow_s002.png"]
    write_named(source, "box3")
    prepare_folder(source, out, OWN_SIZE)
    assert names(out) == ["bow_s001.png", "bow_s002.png", "box2_s001.png", "box3_s001.png"]


@pytest.mark.parametrize("stem", ["aS", "aT0"])
def test_prepare_folder_refuses_a_name_that_is_that_of_another_size(tmp_path: Path, stem: str) -> None:
    with pytest.raises(InputError, match=f"whose sub-images are both called {stem}_s001.png"):
        prepare_folder(write_named(tmp_path / "in", "a", stem), tmp_path / "out", SMALL)


def test_prepare_folder_deletes_only_the_sub_images_of_the_changed_image(tmp_path: Path) -> None:
    source, out = write_named(tmp_path / "in", "a", "a_sea", "a_s1"), tmp_path / "out"
    prepare_folder(source, out, OWN_SIZE)
    before = {name: (out / name).stat().st_mtime_ns for name in names(out)}
    write_image(source / "a.png", DecodedImage(noise(33, 32)))
    assert prepare_folder(source, out, OWN_SIZE).skipped == 2
    changed = [name for name in names(out) if before.get(name) != (out / name).stat().st_mtime_ns]
    assert changed == ["a_s001.png", "a_s002.png"]
    assert set(names(out)) == {*before, *changed}


@pytest.mark.parametrize("content", [b"[]\n", b"{}\n", b"no json\n", b"\xff\n", b'{"format": 2, "settings": 3}\n'])
def test_prepare_folder_refuses_a_broken_list_of_finished_images(photos: Path, tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / module.MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=r"prepared\.jsonl: expected the list of finished images"):
        prepare_folder(photos, out, SMALL)
    assert (out / module.MANIFEST).read_bytes() == content


def test_data_prepare_and_check_count_what_they_leave_out(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    frames = [Image.fromarray(noise(32, 32 + k)[:, :32]) for k in range(3)]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    (folder / "notes.txt").write_text("not an image")
    for arguments in (["check", str(folder)], ["prepare", str(folder), "-o", str(tmp_path / "out"), "--size", "32"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert f"Note: {folder}: 1 file of another kind left out (1 .txt)." in result.output
        assert "Note: 2 further frames or pages left out; only the first of each file is read." in result.output
