"""Targets of upscaled files, and jobs with bad files or a full disk."""

import errno
import threading
from pathlib import Path

import numpy as np
import pytest

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import SUFFIXES
from selfsr.upscaling import files as files_module
from selfsr.upscaling.files import upscale_files
from selfsr.upscaling.output_size import OutputSize
from selfsr.upscaling.plan import UpscaleJob, name_output, plan_jobs


def write(path: Path, **image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, DecodedImage(np.full((6, 5, 3), 9, np.uint8), **image))
    return path


def targets(*args, **options) -> list[str]:
    return [str(job.target) for job in plan_jobs(*args, **options).jobs]


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
def test_plan_jobs_chooses_the_targets(folder, inputs, output, suffix, expected):
    assert targets([Path(p) for p in inputs], Path(output), suffix) == expected


def test_plan_jobs_takes_a_folder_with_image_suffix_as_folder(folder):
    Path("strange.png").mkdir()
    assert targets([Path("x.jpg")], Path("strange.png")) == ["strange.png/x.png"]


def test_plan_jobs_ignores_earlier_results_below_the_input(folder):
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
            "upscale: expected a folder for several images, got out.png; name a folder with -o.",
        ),
        (
            ["in"],
            "out.png",
            None,
            "upscale: expected a folder for several images, got out.png; name a folder with -o.",
        ),
        (["x.jpg"], "o.png", "jpg", "upscale: expected --format png for o.png, got jpg; leave --format out."),
        (
            ["z.jpg"],
            "out",
            None,
            "z.jpg: expected an image or a folder of images, got a path that does not exist; did you mean x.jpg?",
        ),
        (
            ["in"],
            "in",
            "keep",
            "upscale: expected a target that is not an input, got in/a.jpg; choose another -o.",
        ),
    ],
)
def test_plan_jobs_refuses_impossible_targets(folder, inputs, output, suffix, message):
    with pytest.raises(InputError) as error:
        plan_jobs([Path(p) for p in inputs], Path(output), suffix, "overwrite")
    assert str(error.value) == message


def test_plan_jobs_refuses_or_skips_existing_targets(folder):
    write(Path("out/a.png"))
    write(Path("out/deep/a.png"))
    with pytest.raises(InputError) as error:
        plan_jobs([Path("in")], Path("out"))
    assert str(error.value) == (
        "upscale: expected new files, got out/a.png, which exists (and 1 more); "
        "add --overwrite to replace it or --skip-existing to keep it."
    )
    plan = plan_jobs([Path("in")], Path("out"), existing="skip")
    assert ([job.target for job in plan.jobs], plan.skipped) == ([Path("out/b.png")], 2)
    assert len(plan_jobs([Path("in")], Path("out"), existing="overwrite").jobs) == 3


def run(jobs, work=None, scale=1, advanced=None, told=None):
    return upscale_files(
        jobs,
        work or (lambda image, job: image),
        output_size=OutputSize(scale),
        advance=lambda: None if advanced is None else advanced.append(1),
        on_failure=lambda sentence: None if told is None else told.append(sentence),
    )


def test_upscale_files_skips_and_reports_bad_files(tmp_path):
    good = [write(tmp_path / name) for name in ("a.png", "c.png", "f.png")]
    (tmp_path / "b.png").write_bytes(b"no image")
    translucent = write(tmp_path / "d.png", alpha=np.full((6, 5), 7, np.uint8))
    names = ["a.png", "b.png", "c.png", "missing.png", "d.png", "e.png", "f.png"]
    write(tmp_path / "e.png")
    jobs = [UpscaleJob(tmp_path / name, tmp_path / "out" / name) for name in names]
    jobs[4] = UpscaleJob(translucent, tmp_path / "out" / "d.jpg")

    def work(image, job):
        if job.source.name == "e.png":
            raise InputError("upscale: the output of Tiny has NaN or infinite values.")
        assert job.source.name != "d.png", "not upscaled in vain"
        return image

    advanced, told = [], []
    outcome = run(jobs, work, advanced=advanced, told=told)
    assert outcome.written == 3
    assert outcome.failures == told
    assert len(advanced) == len(jobs)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [p.name for p in good]
    expected = [
        f"{tmp_path}/b.png: expected a readable image",
        f"{tmp_path}/missing.png: expected an image, got a path that does not exist",
        f"{tmp_path}/d.png: {tmp_path}/out/d.jpg: expected a format that can hold the image",
        f"{tmp_path}/e.png: upscale: the output of Tiny has NaN or infinite values.",
    ]
    for sentence, start in zip(told, expected, strict=True):
        assert sentence.startswith(start)


def test_upscale_files_refuses_too_long_sides_before_the_work(tmp_path):
    write_image(tmp_path / "a.png", DecodedImage(np.zeros((300, 5, 3), np.uint8)))
    job = UpscaleJob(tmp_path / "a.png", tmp_path / "a.webp")
    told = []
    run([job], lambda *_: pytest.fail("upscaled in vain"), scale=64, told=told)
    assert told == [
        f"{tmp_path}/a.png: {tmp_path}/a.webp: expected a format that can hold the image, but .webp cannot hold "
        "19200 x 320 pixels; write PNG or TIFF."
    ]


def test_upscale_files_stops_on_a_full_disk_and_loses_nothing(tmp_path, monkeypatch):
    jobs = [UpscaleJob(write(tmp_path / f"{k}.png"), tmp_path / "out" / f"{k}.png") for k in range(6)]
    real = files_module.write_image

    def fills_up(path, image, **_):
        if path.name in ("2.png", "3.png"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, image)

    monkeypatch.setattr(files_module, "write_image", fills_up)
    with pytest.raises(OSError, match="No space left") as error:
        run(jobs)
    assert error.value.filename == str(tmp_path / "out" / "2.png")
    for k in (0, 1):
        assert read_image(tmp_path / "out" / f"{k}.png").pixels.shape == (6, 5, 3)
    assert not any(p.name.endswith(".part") for p in (tmp_path / "out").iterdir())


def test_upscale_files_writes_during_the_work(tmp_path, monkeypatch):
    """The second image is upscaled while the first is being written, but no more than two wait."""
    jobs = [UpscaleJob(write(tmp_path / f"{k}.png"), tmp_path / "out" / f"{k}.png") for k in range(4)]
    second = threading.Event()
    running = []

    def slow(path, image, **_):
        running.append(path.name)
        assert second.wait(20), "writing blocks the work"

    monkeypatch.setattr(files_module, "write_image", slow)

    def work(image, job):
        if job.source.name == "1.png":
            second.set()
        return image

    assert run(jobs, work).written == 4
    assert sorted(running) == [f"{k}.png" for k in range(4)]


def test_upscale_files_without_jobs_writes_nothing():
    assert run([]).written == 0


@pytest.mark.parametrize(
    ("inputs", "output"),
    [(["x.jpg"], "out.avif"), (["x.jpg"], "out.jxl"), (["x.jpg"], "out.xyz"), (["in"], "out.avif"), (["in"], "o.jp2")],
)
def test_plan_jobs_takes_no_file_name_for_a_folder(folder, inputs, output):
    with pytest.raises(InputError) as error:
        plan_jobs([Path(p) for p in inputs], Path(output))
    assert str(error.value) == (
        f"upscale: expected a file that ends in {', '.join(SUFFIXES)}, or a folder, got {output}; "
        "choose one of these formats."
    )


@pytest.mark.parametrize("output", ["out.v2", "v1.5", "out.d/x"])
def test_plan_jobs_allows_dots_in_names_of_folders(folder, output):
    assert targets([Path("x.jpg")], Path(output)) == [f"{output}/x.png"]


def test_plan_jobs_of_a_folder_may_go_to_the_working_directory(folder):
    assert targets([Path("in")], Path()) == ["a.png", "b.png", "deep/a.png"]


@pytest.mark.parametrize(
    ("inputs", "output", "mixed"),
    [(["in"], "in", "in"), (["in/deep"], "in/deep", "in/deep"), (["in", "more"], ".", "in"), (["in/deep"], "in", None)],
)
def test_plan_jobs_never_writes_among_the_inputs(folder, inputs, output, mixed):
    """The results would be inputs of the next call."""
    if mixed is None:
        assert targets([Path(p) for p in inputs], Path(output)) == [f"{output}/a.png"]
        return
    Path("in/b.PNG").unlink()  # whose result would replace it
    with pytest.raises(InputError, match=r"expected an output folder other than the input, got .*; choose another -o"):
        plan_jobs([Path(p) for p in inputs], Path(output))


def test_plan_jobs_of_nothing_but_earlier_results_is_refused(folder):
    write(Path("old/out/a.png"))
    with pytest.raises(InputError) as error:
        plan_jobs([Path("old")], Path("old/out"), existing="overwrite")
    assert str(error.value) == (
        "upscale: expected images in old, got none outside of old/out; pass the folder of the originals."
    )


@pytest.mark.parametrize(
    ("sources", "suffix", "expected"),
    [
        (["a.png", "a.jpg"], None, ["a_png.png", "a_jpg.png"]),
        (["a.png", "a.jpg"], "keep", ["a.png", "a.jpg"]),
        (["a.png", "a.jpg", "a_jpg.tif"], None, ["a_png.png", "a_jpg_2.png", "a_jpg.png"]),
        (["x/a.jpg", "y/a.jpg", "z/a.jpg", "x/b.jpg"], None, ["a.png", "a_2.png", "a_3.png", "b.png"]),
        (["x/a.jpg", "y/a.jpg", "y/a_2.png"], None, ["a.png", "a_3.png", "a_2.png"]),
        (["x/a.jpg", "x/a.jpg"], None, ["a.png"]),
        (["x/a.jpg", "y/A.jpg"], None, ["a.png", "A_2.png"]),
    ],
)
def test_images_with_one_name_are_kept_apart(tmp_path, monkeypatch, sources, suffix, expected):
    monkeypatch.chdir(tmp_path)
    for name in sources:
        write(Path(name))
    plan = plan_jobs([Path(name) for name in sources], Path("out"), suffix)
    assert [job.target.relative_to("out").as_posix() for job in plan.jobs] == expected
    assert [job.source.as_posix() for job in plan.jobs] == list(dict.fromkeys(sources))


def test_renamed_images_are_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/a.jpg", "in/b.png"):
        write(Path(name))
    assert plan_jobs([Path("in")], Path("out")).describe_renamed() == (
        "Images with the same name are kept apart: in/a.jpg as a_jpg.png, in/a.png as a_png.png."
    )
    assert plan_jobs([Path("in/b.png")], Path("out")).describe_renamed() is None


def test_names_end_in_the_suffix(folder):
    assert targets([Path("in")], Path("out"), "keep", name_suffix="_v1.5") == [
        "out/a_v1.5.jpg",
        "out/b_v1.5.PNG",
        "out/deep/a_v1.5.jpg",
    ]
    assert name_output([Path("x.jpg")], 2.5) == Path("x_x2.5.png")
    assert name_output([Path("x.jpg")], 2, "keep", "_hr") == Path("x_hr.jpg")
    assert name_output([Path("in")], 2, None, "_hr") == folder / "in_x2"


def test_formats_that_are_only_read_become_png(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.avif", "b.jp2", "c.tga", "d.bmp"):
        Path(name).write_bytes(b"?")
    assert targets([Path(name) for name in ("a.avif", "b.jp2", "c.tga", "d.bmp")], Path("out"), "keep") == [
        "out/a.png",
        "out/b.png",
        "out/c.png",
        "out/d.bmp",
    ]


def test_each_model_has_its_targets(folder):
    assert targets([Path("in/deep")], Path("in/out"), models=["one", "two.v2"]) == [
        "in/out/one/a.png",
        "in/out/two.v2/a.png",
    ]
    assert targets([Path("x.jpg")], Path("o.png"), models=["one", "two"], samples=2) == [
        "o_s0_one.png",
        "o_s1_one.png",
        "o_s0_two.png",
        "o_s1_two.png",
    ]
    assert [job.model for job in plan_jobs([Path("x.jpg")], Path("out"), models=["one", "two"]).jobs] == [0, 1]
