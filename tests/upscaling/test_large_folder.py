"""A folder of 200 mixed files, in one command: what is written, what is left out, and why."""

import importlib.util
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, features
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import app
from selfsr.images.animation import AnimationReader, AnimationTiming, encode_animation
from selfsr.images.files import DecodedImage, read_header, read_image, write_image
from selfsr.images.floats import FloatFormat
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import save_weights

pytestmark = pytest.mark.slow

HAS_FFMPEG = shutil.which("ffmpeg") is not None
HAS_EXR = importlib.util.find_spec("OpenEXR") is not None
NAMES = ("plain", "größe", "наше", "名前", "with space", "UPPER", "dotted.name.v2", "accé'nt")


def write_still(path: Path, index: int) -> None:
    """Write an image of 14 rows and 10 columns, of another kind for each index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = texture(index, 14, 10)
    image, alpha = Image.fromarray(pixels), pixels[:, :, 0].copy()
    kinds = [
        lambda: write_image(path.with_suffix(".png"), DecodedImage(pixels)),
        lambda: write_image(path.with_suffix(".jpg"), DecodedImage(pixels)),
        lambda: write_image(path.with_suffix(".webp"), DecodedImage(pixels, alpha)),
        lambda: write_image(path.with_suffix(".tif"), DecodedImage(pixels.astype(np.uint16) * 257)),
        lambda: write_image(path.with_suffix(".bmp"), DecodedImage(pixels[:, :, :1])),
        lambda: image.save(path.with_suffix(".tga")),
        lambda: image.convert("CMYK").save(path.with_suffix(".jpeg")),
        lambda: image.convert("P").save(path.with_suffix(".PNG")),
        lambda: image.rotate(90, expand=True).save(path.with_suffix(".jpg"), exif=turn()),
        lambda: tifffile.imwrite(path.with_suffix(".tiff"), pixels.astype(np.float32) / 255, photometric="rgb"),
        lambda: image.save(path.with_suffix(".gif")),
        lambda: write_image(path.with_suffix(".png"), DecodedImage(pixels.astype(np.uint16), alpha.astype(np.uint16))),
    ]
    kinds[index % len(kinds)]()


def turn() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a turn to the right
    return exif.tobytes()


def write_broken(path: Path, index: int) -> None:
    """Write a file that is no image, of another kind for each index."""
    whole = Path("good.png").read_bytes()
    contents = {
        ".png": whole[: len(whole) // 2], ".jpg": b"", ".tif": bytes(100), ".webp": b"text", ".bmp": b"BM" + bytes(20),
        ".gif": b"GIF89a" + bytes(3), ".jp2": b"\0\0\0\x0cjP  \r\n\x87\n", ".PNG": b"\xff\xd8\xff\xe0" + bytes(9),
    }  # fmt: skip
    suffix = list(contents)[index % len(contents)]
    path.with_suffix(suffix).write_bytes(contents[suffix])


def write_folder(folder: Path) -> Counter[str]:
    """Write 200 files; return how many there are of each kind."""
    counts: Counter[str] = Counter()
    for index in range(160):
        write_still(folder / f"sub{index % 3}" / f"{NAMES[index % len(NAMES)].replace('.', '_')}{index}", index)
        counts["still"] += 1
    for index in range(16):
        write_broken(folder / f"broken{index}", index)
        counts["broken"] += 1
    for suffix in (".gif", ".webp", ".png", ".apng"):
        frames = np.full((3, 8, 6, 4), 255, np.uint8)
        frames[:, :, :, 0] = np.arange(3)[:, None, None] * 80
        timing = AnimationTiming((50.0, 70.0, 90.0), 0)
        (folder / f"moving {suffix[1:]}{suffix}").write_bytes(encode_animation(suffix, frames, timing))
        counts["animation"] += 1
    for index in range(4 * HAS_EXR):
        pixels = texture(index, 14, 10).astype(np.float16) / 100
        write_image(folder / f"light{index}.exr", DecodedImage(pixels, float_format=FloatFormat(True, True)))
        counts["exr"] += 1
    if HAS_FFMPEG:
        command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=16x12:r=10", "-f", "lavfi"]
        for name in ("clip.mp4", "clip.webm"):
            subprocess.run([*command, "-i", "sine=d=0.4", "-frames:v", "4", folder / name], check=True)
            counts["video"] += 1
    index = 0
    while counts.total() < 200:
        (folder / f"notes{index}{('.txt', '.csv', '.xmp', '')[index % 4]}").write_text("no image")
        counts["other"] += 1
        index += 1
    return counts


def test_200_mixed_files_are_upscaled_in_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_weights(tmp_path / "two.safetensors", EdsrSpec(features=8, blocks=1).build(2), {})
    write_image(Path("good.png"), DecodedImage(texture(0, 14, 10)))
    counts = write_folder(Path("mixed"))
    assert sum(path.is_file() for path in Path("mixed").rglob("*")) == 200
    command = ["upscale", "mixed", "-o", "out", "-m", "two.safetensors", "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    print(result.output)
    broken = counts["broken"] - (0 if features.check("jpg_2000") else 2)
    good = counts.total() - counts["broken"] - counts["other"]
    assert result.exit_code == 1
    kinds = f"{counts['still'] + counts['exr']} images, {counts['animation']} animations"
    kinds += f", {counts['video']} videos" if counts["video"] else ""
    assert f"{good} of {good + broken} files written to out ({kinds})." in result.output
    assert f"Note: mixed: {counts['other']} files of other kinds left out (" in result.output
    assert (
        f"selfsr: {broken} of {good + broken} files failed, for the reasons above: mixed/broken0.png, " in result.output
    )
    reasons = [line for line in result.output.splitlines() if line.startswith("selfsr: mixed/broken")]
    assert len(reasons) == broken
    assert all(": expected " in line and line.endswith(".") for line in reasons)
    written = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(written) == good
    suffixes = Counter(path.suffix.lower() for path in written)
    assert suffixes == Counter(
        {".png": counts["still"] + 1, ".gif": 1, ".webp": 1, ".apng": 1}
        | ({".exr": 4} if HAS_EXR else {})
        | ({".mp4": 1, ".webm": 1} if HAS_FFMPEG else {})
    )
    for path in written:
        if path.suffix == ".png" and "moving" not in path.name:
            header = read_header(path)
            assert (header.height, header.width) == (28, 20), path
    assert AnimationReader(Path("out/moving webp.webp")).frames == 3
    turned = next(path for path in written if path.stem.endswith("8") and path.stem.removesuffix("8") == "plain")
    original = texture(8, 14, 10)
    shown = np.asarray(Image.fromarray(read_image(turned).pixels).resize((10, 14), Image.Resampling.BOX))
    assert np.abs(shown.astype(int) - original).mean() < 60  # the small network changes colors, but not their places


def test_the_turned_image_is_upright(tmp_path: Path) -> None:
    write_still(tmp_path / "a", 8)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.size == (14, 10)
    assert np.abs(read_image(tmp_path / "a.jpg").pixels.astype(int) - texture(8, 14, 10)).mean() < 15
