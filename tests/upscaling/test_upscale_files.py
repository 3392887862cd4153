"""What goes where, and what becomes of a job when a file is bad or the disk is full."""

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from selfsr.errors import InputError
from selfsr.images.files import Picture, read_picture, write_picture
from selfsr.upscaling import files as files_module
from selfsr.upscaling.files import Job, plan_jobs, upscale_files


def write(path: Path, **picture) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, Picture(np.full((6, 5, 3), 9, np.uint8), **picture))
    return path


def targets(*args, **options) -> list[str]:
    jobs, _ = plan_jobs(*args, **options)
    return [str(job.target) for job in jobs]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory: a folder `in` with sub-folders, and two files."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jpg", "in/b.PNG", "in/deep/a.jpg", "more/a.jpg", "x.jpg", "y.tif"):
        write(Path(name))
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "output", "suffix", "expected"),
    [
        (["x.jpg"], "out.png", None, ["out.png"]),
        (["x.jpg"], "sub/out.tif", "tiff", ["sub/out.tif"]),
        (["x.jpg"], "out.jpeg", "jpg", ["out.jpeg"]),
        (["x.jpg"], "out.png", "keep", ["out.png"]),
        (["x.jpg"], "out", None, ["out/x.png"]),
        (["x.jpg"], "more", "webp", ["more/x.webp"]),
        (["x.jpg", "y.tif"], "out", "keep", ["out/x.jpg", "out/y.tif"]),
        (["in"], "out", None, ["out/a.png", "out/b.png", "out/deep/a.png"]),
        (["in/"], "out", "keep", ["out/a.jpg", "out/b.PNG", "out/deep/a.jpg"]),
        (
            ["in", "more", "x.jpg"],
            "o",
            None,
            ["o/in/a.png", "o/in/b.png", "o/in/deep/a.png", "o/more/a.png", "o/x.png"],
        ),
    ],
)
def test_where_pictures_go(folder, inputs, output, suffix, expected):
    assert targets([Path(p) for p in inputs], Path(output), suffix) == expected


def test_a_folder_with_a_picture_suffix_is_a_folder(folder):
    Path("strange.png").mkdir()
    assert targets([Path("x.jpg")], Path("strange.png")) == ["strange.png/x.png"]


def test_earlier_results_below_the_input_are_no_input(folder):
    write(Path("in/out/a.png"))
    assert targets([Path("in")], Path("in/out"), existing="overwrite") == [
        "in/out/a.png",
        "in/out/b.png",
        "in/out/deep/a.png",
    ]


@pytest.mark.parametrize(
    ("inputs", "output", "suffix", "message"),
    [
        (
            ["x.jpg", "y.tif"],
            "out.png",
            None,
            "upscale: out.png is the name of one picture, but there are several; name a folder with -o.",
        ),
        (
            ["in"],
            "out.png",
            None,
            "upscale: out.png is the name of one picture, but there are several; name a folder with -o.",
        ),
        (["x.jpg"], "o.png", "jpg", "upscale: o.png says png, --format says jpg; leave one of them out."),
        (
            ["z.jpg"],
            "out",
            None,
            "z.jpg: expected a picture or a folder of pictures, but there is nothing of this name; did you mean x.jpg?",
        ),
        (
            ["x.jpg", "in/a.jpg", "in/a.jpg", "more/a.jpg"],
            "out",
            None,
            "upscale: in/a.jpg and more/a.jpg would both become out/a.png; "
            "use --format keep, or upscale them one by one.",
        ),
        (
            ["in"],
            "in",
            "keep",
            "upscale: in/a.jpg would replace a picture that is to be upscaled; choose another -o.",
        ),
    ],
)
def test_plans_that_cannot_be_are_told(folder, inputs, output, suffix, message):
    with pytest.raises(InputError) as error:
        plan_jobs([Path(p) for p in inputs], Path(output), suffix, "overwrite")
    assert str(error.value) == message


def test_existing_pictures_are_not_touched_unasked(folder):
    write(Path("out/a.png"))
    write(Path("out/deep/a.png"))
    with pytest.raises(InputError) as error:
        plan_jobs([Path("in")], Path("out"))
    assert str(error.value) == (
        "upscale: out/a.png is already there (and 1 more); "
        "add --overwrite to replace it or --skip-existing to leave it."
    )
    jobs, skipped = plan_jobs([Path("in")], Path("out"), existing="skip")
    assert ([job.target for job in jobs], skipped) == ([Path("out/b.png")], 2)
    assert len(plan_jobs([Path("in")], Path("out"), existing="overwrite")[0]) == 3


def run(jobs, work=None, scale=1, advanced=None, told=None):
    return upscale_files(
        jobs,
        work or (lambda picture, job: picture),
        scale=scale,
        advance=lambda: None if advanced is None else advanced.append(1),
        on_failure=lambda sentence: None if told is None else told.append(sentence),
    )


def test_bad_files_are_left_out_and_told(tmp_path):
    good = [write(tmp_path / name) for name in ("a.png", "c.png", "f.png")]
    (tmp_path / "b.png").write_bytes(b"no picture")
    translucent = write(tmp_path / "d.png", alpha=np.full((6, 5), 7, np.uint8))
    names = ["a.png", "b.png", "c.png", "missing.png", "d.png", "e.png", "f.png"]
    write(tmp_path / "e.png")
    jobs = [Job(tmp_path / name, tmp_path / "out" / name) for name in names]
    jobs[4] = Job(translucent, tmp_path / "out" / "d.jpg")

    def work(picture, job):
        if job.source.name == "e.png":
            raise InputError("upscale: the output of Tiny has NaN or infinite values.")
        assert job.source.name != "d.png", "not upscaled in vain"
        return picture

    advanced, told = [], []
    outcome = run(jobs, work, advanced=advanced, told=told)
    assert outcome.written == 3
    assert outcome.failures == told
    assert len(advanced) == len(jobs)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [p.name for p in good]
    expected = [
        f"{tmp_path}/b.png: expected a readable picture",
        f"{tmp_path}/missing.png: expected a picture, but there is nothing of this name",
        f"{tmp_path}/d.png: {tmp_path}/out/d.jpg: expected a format that can hold the picture",
        f"{tmp_path}/e.png: upscale: the output of Tiny has NaN or infinite values.",
    ]
    for sentence, start in zip(told, expected, strict=True):
        assert sentence.startswith(start)


def test_a_side_too_long_for_the_format_is_told_before_the_work(tmp_path):
    job = Job(write(tmp_path / "a.png"), tmp_path / "a.webp")
    told = []
    run([job], lambda *_: pytest.fail("upscaled in vain"), scale=4000, told=told)
    assert told == [
        f"{tmp_path}/a.png: {tmp_path}/a.webp: expected a format that can hold the picture, but .webp cannot hold "
        "24000 x 20000 pixels; write PNG or TIFF."
    ]


def test_a_full_disk_ends_the_job_and_loses_nothing(tmp_path, monkeypatch):
    jobs = [Job(write(tmp_path / f"{k}.png"), tmp_path / "out" / f"{k}.png") for k in range(6)]
    real = files_module.write_any_picture

    def fills_up(path, picture):
        if path.name in ("2.png", "3.png"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, picture)

    monkeypatch.setattr(files_module, "write_any_picture", fills_up)
    with pytest.raises(OSError, match="No space left") as error:
        run(jobs)
    assert error.value.filename == str(tmp_path / "out" / "2.png")
    for k in (0, 1):
        assert read_picture(tmp_path / "out" / f"{k}.png").pixels.shape == (6, 5, 3)
    assert not any(p.name.endswith(".part") for p in (tmp_path / "out").iterdir())


def test_writing_goes_on_beside_the_work(tmp_path, monkeypatch):
    """The second picture is upscaled while the first is being written, but no more than two wait."""
    jobs = [Job(write(tmp_path / f"{k}.png"), tmp_path / "out" / f"{k}.png") for k in range(4)]
    second = threading.Event()
    running = []

    def slow(path, picture):
        running.append(path.name)
        assert second.wait(20), "writing blocks the work"

    monkeypatch.setattr(files_module, "write_any_picture", slow)

    def work(picture, job):
        if job.source.name == "1.png":
            second.set()
        return picture

    assert run(jobs, work).written == 4
    assert sorted(running) == [f"{k}.png" for k in range(4)]


def test_nothing_to_do():
    assert run([]).written == 0
