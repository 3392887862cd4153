"""Interrupted work on a large image: it continues at its tiles, with the same result bit for bit."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factories import texture
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.large import LARGE_BYTES
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights.model import Model
from selfsr.upscaling import partial
from selfsr.upscaling.files import upscale_files
from selfsr.upscaling.output_size import OutputSize
from selfsr.upscaling.partial import name_partial, remove_partial
from selfsr.upscaling.plan import UpscaleJob
from selfsr.upscaling.upscaler import Upscaler

TILES = 9  # of 32 px with an overlap of 8 in an image of 80 x 76


def make_upscaler(notify: Callable[[str], None] = lambda _: None, *, seed: int = 0, **options: Any) -> Upscaler:
    torch.manual_seed(seed)
    facts = {"tiling": "supported", "multiple_of_px": 1, "minimum_px": 1, "square": False}
    facts |= {"supports_half": False, "supports_bfloat16": True}
    model = Model(EdsrSpec(blocks=1, features=8).build(2), architecture="EDSR", scale=2, channels=3, **facts)
    options = {"tile": 32, "overlap_px": 8, "precision": "float32", **options}
    return Upscaler(model, device=torch.device("cpu"), notify=notify, **options)


def make_image(*, alpha: bool = False, seed: int = 1) -> DecodedImage:
    rgb = texture(seed, 80, 76)
    return DecodedImage(rgb, alpha=texture(seed + 1, 80, 76)[..., 0] if alpha else None)


class Stop:
    """Press Ctrl-C after some tiles; count the tiles that are reported."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.reported = after, []

    def __call__(self, done: int, total: int) -> None:
        self.reported.append((done, total))
        if done == self.after:
            raise KeyboardInterrupt


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "big_x2.png"


def interrupt(target: Path, image: DecodedImage, after: int, **options: Any) -> list[str]:
    """Upscale until Ctrl-C; return what was printed."""
    printed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        make_upscaler(printed.append, **options).upscale_image(
            image, scratch=target.parent, on_tile=Stop(after), target=target
        )
    return printed


@pytest.mark.parametrize("after", [1, 3, 5, 9])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("large_bytes", [1000, LARGE_BYTES])  # output in a file from the start, or from Ctrl-C on
def test_the_continued_result_equals_the_uninterrupted_one(
    target: Path, monkeypatch: pytest.MonkeyPatch, after: int, alpha: bool, large_bytes: int
) -> None:
    monkeypatch.setattr(partial, "LARGE_BYTES", large_bytes)
    image = make_image(alpha=alpha)
    expected = make_upscaler().upscale_image(image, scratch=target.parent)
    printed = interrupt(target, image, after)
    folder = name_partial(target)
    assert printed == [
        f"Saved {after} of {TILES} tiles in {folder}; continue with the same command, or delete the folder."
    ]
    notes: list[str] = []
    stop = Stop()
    continued = make_upscaler(notes.append).upscale_image(image, scratch=target.parent, on_tile=stop, target=target)
    assert notes == [f"Continuing after {after} tiles, from {folder}"]
    assert stop.reported == [(done, TILES) for done in range(after, TILES + 1)]
    assert np.array_equal(continued.pixels, expected.pixels)
    if alpha:
        assert continued.alpha is not None
        assert expected.alpha is not None
        assert np.array_equal(continued.alpha, expected.alpha)


def test_work_continues_from_what_a_killed_process_left(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "_SAVE_S", 0.0)
    image, left = make_image(), target.with_name("left")
    expected = make_upscaler().upscale_image(image, scratch=target.parent)

    def copy(done: int, total: int) -> None:
        if done == 6:  # after the state of this tile
            shutil.copytree(name_partial(target), left)

    make_upscaler().upscale_image(image, scratch=target.parent, on_tile=copy, target=target)
    remove_partial(target)
    # The blocks after the state may be there or not; these are not.
    raw = np.memmap(left / "pixels.raw", np.uint8, "r+", shape=expected.pixels.shape)
    raw[130:] = 7
    raw.flush()
    left.rename(name_partial(target))
    stop = Stop()
    continued = make_upscaler().upscale_image(image, scratch=target.parent, on_tile=stop, target=target)
    assert stop.reported[0] == (6, TILES)
    assert np.array_equal(continued.pixels, expected.pixels)


@pytest.mark.parametrize(
    ("image_seed", "options", "other"),
    [(1, {"seed": 3}, "model"), (5, {}, "input"), (1, {"overlap_px": 4}, "options")],
)
def test_the_result_of_another_command_is_not_continued(
    target: Path, image_seed: int, options: dict[str, Any], other: str
) -> None:
    interrupt(target, make_image(), 4)
    notes: list[str] = []
    image = make_image(seed=image_seed)
    result = make_upscaler(notes.append, **options).upscale_image(image, scratch=target.parent, target=target)
    assert notes == [
        f"{name_partial(target)}: expected the unfinished result of this command, got one with another {other}; "
        "starting again."
    ]
    expected = make_upscaler(**options).upscale_image(image, scratch=target.parent)
    assert np.array_equal(result.pixels, expected.pixels)


@pytest.mark.parametrize("damage", ["state.npz", "pixels.raw"])
def test_a_damaged_folder_is_replaced(target: Path, damage: str) -> None:
    interrupt(target, make_image(), 4)
    path = name_partial(target) / damage
    path.write_bytes(path.read_bytes()[:100])
    notes: list[str] = []
    result = make_upscaler(notes.append).upscale_image(make_image(), scratch=target.parent, target=target)
    assert notes == [f"{name_partial(target)}: expected an unfinished result, got one that is damaged; starting again."]
    assert np.array_equal(result.pixels, make_upscaler().upscale_image(make_image(), scratch=target.parent).pixels)


def test_short_work_and_errors_leave_no_folder(target: Path) -> None:
    make_upscaler().upscale_image(make_image(), scratch=target.parent, target=target)
    assert not name_partial(target).exists()
    broken = make_upscaler()
    for parameter in broken.model.net.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(InputError, match="finite output"):
        broken.upscale_image(make_image(), scratch=target.parent, target=target)
    assert not name_partial(target).exists()


def test_the_tile_size_that_was_measured_stays(target: Path) -> None:
    image = DecodedImage(texture(1, 150, 140))  # auto measures above 128 px
    first = make_upscaler(tile="auto")
    first._tile_px = 40  # as if memory had been short
    expected = first.upscale_image(image, scratch=target.parent)
    with pytest.raises(KeyboardInterrupt):
        first.upscale_image(image, scratch=target.parent, on_tile=Stop(5), target=target)
    second = make_upscaler(tile="auto")
    continued = second.upscale_image(image, scratch=target.parent, target=target)
    assert second._tile_px == 40
    assert np.array_equal(continued.pixels, expected.pixels)


def test_another_process_is_kept_out(target: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    interrupt(target, make_image(), 4)
    with (name_partial(target) / "lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="no other process writes"):
            make_upscaler().upscale_image(make_image(), scratch=target.parent, target=target)
    make_upscaler().upscale_image(make_image(), scratch=target.parent, target=target)


def test_the_folder_goes_when_the_result_is_written(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "big.png"
    write_image(source, make_image())
    interrupt(target, read_image(source), 4)
    assert name_partial(target).exists()
    upscaler = make_upscaler()
    summary = upscale_files(
        [UpscaleJob(source, target)],
        lambda image, job: upscaler.upscale_image(image, scratch=tmp_path, target=job.target),
        output_size=OutputSize(2),
        advance=lambda: None,
        on_failure=pytest.fail,
    )
    assert summary.written == 1
    assert target.exists()
    assert not name_partial(target).exists()
