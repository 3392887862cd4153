"""Files of `selfsr degrade`: earlier results, names of any kind, links, and files that cannot be read."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from programs import run_python
from selfsr.degrade import files
from selfsr.degrade.files import PARAMETERS, degrade_files, plan_jobs
from selfsr.degrade.presets import get_preset
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.pairing import pair_lr

NOT_UTF8 = os.fsdecode(b"\xff\xfe\xe9")


def write_photo(path: Path, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    write_image(path, DecodedImage(pixels))


def degrade(folder: Path, output: Path, seed: int = 1, overwrite: bool = False, per_image: int = 1):
    jobs = plan_jobs(folder, output, scale=4, per_image=per_image, overwrite=overwrite)
    return degrade_files(jobs, output, get_preset("bsrgan_ssl"), scale=4, seed=seed, advance=lambda: None)


def read_records(output: Path) -> list[tuple[str, int]]:
    records = [json.loads(line) for line in (output / PARAMETERS).read_text().splitlines()]
    return [(record["file"], record["seed"]) for record in records]


def test_earlier_parameters_are_kept(tmp_path):
    first, second, out = tmp_path / "a", tmp_path / "b", tmp_path / "lr"
    write_photo(first / "x.png")
    write_photo(second / "y.png")
    degrade(first, out)
    degrade(second, out, seed=2)
    assert read_records(out) == [("xx4.png", 1), ("yx4.png", 2)]
    write_photo(first / "z.png")
    degrade(first, out, seed=3, overwrite=True)
    assert read_records(out) == [("yx4.png", 2), ("xx4.png", 3), ("zx4.png", 3)]


def test_lines_of_others_and_a_cut_line_are_kept(tmp_path):
    out = tmp_path / "lr"
    write_photo(tmp_path / "a" / "x.png")
    out.mkdir()
    former = b'{"file": "xx4.png", "seed": 5}\nnot JSON\n[1]\n{"file": "w'
    (out / PARAMETERS).write_bytes(former)
    degrade(tmp_path / "a", out)
    lines = (out / PARAMETERS).read_bytes().splitlines()
    assert lines[:3] == [b"not JSON", b"[1]", b'{"file": "w']
    assert json.loads(lines[3])["seed"] == 1
    assert len(lines) == 4


def test_parameters_of_finished_images_survive_a_stop(tmp_path, monkeypatch):
    out = tmp_path / "lr"
    for index in range(4):
        write_photo(tmp_path / "a" / f"{index}.png", index)
    degrade(tmp_path / "a", out)
    real = files.write_image

    last = threading.Event()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def stop(path, image):
        if path.name == "2x4.png":
            last.wait(20)
            raise OSError(28, "No space left on device", str(path))
        real(path, image)
        if path.name == "3x4.png":
            last.set()

    monkeypatch.setattr(files, "write_image", stop)
    with pytest.raises(OSError, match="No space left"):
        degrade(tmp_path / "a", out, seed=2, overwrite=True)
    # The last record of an image counts; that of 3x4.png is there although the image was behind the failed one.
    assert dict(read_records(out)) == {"0x4.png": 2, "1x4.png": 2, "2x4.png": 1, "3x4.png": 2}
    assert read_records(out)[:4] == [(f"{index}x4.png", 1) for index in range(4)]
    monkeypatch.setattr(files, "write_image", real)
    degrade(tmp_path / "a", out, seed=3, overwrite=True)
    assert read_records(out) == [(f"{index}x4.png", 3) for index in range(4)]


def test_results_of_earlier_calls_are_not_taken_as_images(tmp_path):
    folder = tmp_path / "a"
    write_photo(folder / "x.png")
    write_photo(folder / "deep" / "y.png")
    degrade(folder, folder / "lr", per_image=2)
    jobs = plan_jobs(folder, folder / "other" / "lr", scale=4)
    assert [job.name for job in jobs] == ["deep/y.png", "x.png"]
    (tmp_path / "link").symlink_to(folder / "lr")
    linked = plan_jobs(folder, tmp_path / "link", scale=4, overwrite=True)
    assert [job.name for job in linked] == ["deep/y.png", "x.png"]
    # The folder itself may be such a result.
    assert len(plan_jobs(folder / "lr", tmp_path / "again", scale=4)) == 4
    with pytest.raises(InputError, match="expected an output folder other than the input"):
        plan_jobs(folder / "lr", tmp_path / "link", scale=4)


@pytest.mark.parametrize("stem", ["n" * 251, "名" * 83, "n" * 249, NOT_UTF8, "[bold]x", "nl\nx", "%s"])
def test_any_name_is_degraded_and_paired(tmp_path, stem):
    hr, out = tmp_path / "hr", tmp_path / "lr"
    path = hr / f"{stem}.png"
    write_photo(path)
    write_photo(hr / "plain.png")
    result = degrade(hr, out)
    assert (result.written, result.failures) == (2, [])
    too_long = len(os.fsencode(f"{stem}x4.png")) > 255
    target = out / (f"{stem}.png" if too_long else f"{stem}x4.png")
    assert read_image(target).pixels.shape == (6, 8, 3)
    record = next(r for r in map(json.loads, (out / PARAMETERS).read_text().splitlines()) if r["source"] == path.name)
    assert record["file"] == target.name
    assert pair_lr(hr, [path], out, 4) == [target]
    before = target.read_bytes()
    degrade(hr, out, overwrite=True)
    assert target.read_bytes() == before


def test_the_command_prints_names_that_are_not_utf8(tmp_path):
    folder = tmp_path / NOT_UTF8
    write_photo(folder / f"{NOT_UTF8}.png")
    (folder / f"bad{NOT_UTF8}.png").write_bytes(b"none")
    out, sheet = tmp_path / f"lr{NOT_UTF8}", tmp_path / f"sheet{NOT_UTF8}.png"
    arguments = ["degrade", folder, "-o", out, "--preset", "bsrgan_ssl", "--contact-sheet", sheet]
    run = run_python("-m", "selfsr", *arguments)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert f"1 of 2 images written to {out}" in run.stdout
    assert "expected a readable image" in run.stderr
    assert sheet.exists()


def test_bad_links_and_unreadable_files_spoil_only_themselves(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    write_photo(folder / "x.png")
    write_photo(folder / "closed.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "lost.png").symlink_to(tmp_path / "gone.png")
    (folder / "folder").symlink_to("folder")
    real = files.read_image

    def refuse(path):
        if path.name == "closed.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(files, "read_image", refuse)  # root may read everything
    result = degrade(folder, tmp_path / "lr")
    assert result.written == 1
    assert [failure.split(":")[0] for failure in result.failures] == [
        str(folder / name) for name in ("closed.png", "loop.png", "lost.png")
    ]
    assert result.failures[0].endswith("closed.png: expected a readable file, got Permission denied; check it.")


def test_further_frames_are_counted(tmp_path):
    (tmp_path / "a").mkdir()
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a" / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert degrade(tmp_path / "a", tmp_path / "lr", per_image=2).further_frames == 2
