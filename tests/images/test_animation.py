"""Animations: frames, durations and repetitions of GIF, animated PNG and animated WebP are read as they are written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import texture
from selfsr.errors import InputError
from selfsr.images.animation import AnimationReader, AnimationTiming, encode_animation, find_animation_suffix

DURATIONS_MS = (100.0, 40.0, 200.0, 70.0)


def make_frames(*, has_alpha: bool) -> np.ndarray:
    """Return `[4, H, W, 4]`, each frame with another transparent corner, which a viewer must clear again."""
    frames = np.full((4, 20, 24, 4), 255, np.uint8)
    for index, frame in enumerate(frames):
        frame[:, :, :3] = texture(index, 20, 24)
        if has_alpha:
            frame[: 12 - 3 * index, :8, 3] = 0
    return frames


@pytest.mark.parametrize("plays", [0, 1, 3])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng", ".webp"])
def test_animations_are_read_as_they_are_written(tmp_path: Path, suffix: str, has_alpha: bool, plays: int) -> None:
    frames = make_frames(has_alpha=has_alpha)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode_animation(suffix, frames, AnimationTiming(DURATIONS_MS, plays)))
    assert find_animation_suffix(path) == suffix
    reader = AnimationReader(path)
    assert (reader.frames, reader.height, reader.width) == (4, 20, 24)
    for image, frame in zip(reader.read_frames(), frames, strict=True):
        assert (image.alpha is not None) == has_alpha
        assert not has_alpha or np.array_equal(image.alpha, frame[:, :, 3])
        difference = np.abs(image.pixels.astype(int) - frame[:, :, :3])[frame[:, :, 3] > 0]
        assert difference.mean() < 8 if suffix == ".gif" else difference.max() == 0  # 255 colors of more than 400
    assert reader.timing == AnimationTiming(DURATIONS_MS, plays)


def test_pillow_agrees_on_the_repetitions_of_a_gif(tmp_path: Path) -> None:
    for plays, loop in ((0, 0), (1, None), (3, 2)):  # a GIF counts repetitions after the first time
        path = tmp_path / f"{plays}.gif"
        path.write_bytes(encode_animation(".gif", make_frames(has_alpha=False), AnimationTiming(DURATIONS_MS, plays)))
        with Image.open(path) as image:
            assert image.info.get("loop") == loop


def test_poster_of_an_animated_png_stays_apart(tmp_path: Path) -> None:
    frames = make_frames(has_alpha=False)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(
        tmp_path / "a.png", save_all=True, append_images=images[1:], default_image=True, duration=[40, 200, 70]
    )
    reader = AnimationReader(tmp_path / "a.png")
    assert len(list(reader.read_frames())) == 4
    assert reader.timing.has_poster
    (tmp_path / "b.png").write_bytes(encode_animation(".png", frames, reader.timing))
    with Image.open(tmp_path / "b.png") as image:
        assert image.default_image  # pyright: ignore[reportAttributeAccessIssue]
        durations = []
        for index in range(1, 4):
            image.seek(index)
            durations.append(image.info["duration"])
    assert durations == [40, 200, 70]


def test_other_files_are_no_animations(tmp_path: Path) -> None:
    Image.fromarray(texture(0, 8, 8)).save(tmp_path / "still.gif")
    (tmp_path / "empty.gif").write_bytes(b"")
    (tmp_path / "text.webp").write_text("no image")
    assert [find_animation_suffix(path) for path in sorted(tmp_path.iterdir())] == [None] * 3
    assert find_animation_suffix(tmp_path / "missing.gif") is None


def test_damaged_frame_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    content = bytearray(encode_animation(".webp", make_frames(has_alpha=False), AnimationTiming(DURATIONS_MS, 0)))
    content[len(content) // 2 :: 7] = bytes(len(content[len(content) // 2 :: 7]))
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(AnimationReader(path).read_frames())
    assert str(error.value).startswith(f"{path}: expected ")
    assert str(error.value).endswith("replace the file.")
