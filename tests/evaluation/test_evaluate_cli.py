"""The commands evaluate and upscale, as typed by a user."""

import json
import math
import re

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from selfsr.cli import evaluate as evaluate_verb
from selfsr.cli import upscale as upscale_verb
from selfsr.errors import InputError
from selfsr.evaluation.metrics import METRICS, list_extra_metrics
from selfsr.images.files import DecodedImage, image_to_tensor, read_image, tensor_to_pixels, write_image
from selfsr.images.resize import bicubic_lr, imresize
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights.save import save_weights

app = typer.Typer()
app.command("evaluate", epilog=evaluate_verb.EPILOG)(evaluate_verb.evaluate)
app.command("upscale", epilog=upscale_verb.EPILOG)(upscale_verb.upscale)


def call(*args) -> "tuple[int, str, str]":
    """Run a command line; return exit status, stdout without line breaks of the terminal, stderr likewise."""
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def mistake(*args) -> str:
    with pytest.raises(InputError) as error:
        call(*args)
    return str(error.value)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small EDSR x2 that upscales by nearest neighbor, nearly."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_weights(path, EdsrSpec(blocks=1, features=8).build(2), {})
    return path


def photo(path, height=40, width=36, seed=0, **kept):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.rand(1, 3, 8, 7, generator=torch.Generator().manual_seed(seed))
    image = imresize(noise, size=(height, width))[0].clamp(0, 1).mul(255).round().byte()
    write_image(path, DecodedImage(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), **kept))
    return path


@pytest.fixture
def bench(tmp_path):
    for k, name in enumerate(("bench/A/a.png", "bench/A/b.png", "bench/B/c.png")):
        photo(tmp_path / name, seed=k)
    return tmp_path / "bench"


def test_evaluate_bicubic_and_a_model(bench, weights, tmp_path):
    out, images = tmp_path / "deep" / "results.json", tmp_path / "images"
    status, stdout, _ = call(
        "evaluate", weights, "--bicubic", "--data", bench, "--out", out, "--save-images", images, "--device", "cpu"
    )
    assert status == 0
    rows = [line.split() for line in stdout.splitlines()]
    assert rows[0] == ["x2", "upscaler", "images", "PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM-RGB"]
    assert [row[:3] for row in rows[1:-1]] == [
        ["A", "bicubic", "2"],
        ["A", "tiny.safetensors", "2"],
        ["B", "bicubic", "1"],
        ["B", "tiny.safetensors", "1"],
    ]
    record = json.loads(out.read_text())
    assert record["protocol"]["border_px"] == 2
    assert [result["upscaler"] for result in record["results"]] == ["bicubic", str(weights)]
    mean = record["results"][0]["sets"]["A"]["mean"]
    assert rows[1][3:] == [
        f"{mean[key]:{digits}}"
        for key, digits in (("psnr_y", ".2f"), ("ssim_y", ".4f"), ("psnr_rgb", ".2f"), ("ssim_rgb", ".4f"))
    ]
    assert mean["psnr_y"] > 40 > record["results"][1]["sets"]["A"]["mean"]["psnr_y"]
    assert list(record["results"][1]["sets"]["A"]["images"]) == ["a", "b"]
    # the images are the outputs of the model, scored as written
    found = sorted(p.relative_to(images).as_posix() for p in images.rglob("*.png"))
    assert found == [f"{name}{suffix}.png" for name in ("A/a", "A/b", "B/c") for suffix in ("", "_compare")]
    sr, hr = (read_image(p).pixels.astype(float)[2:-2, 2:-2] for p in (images / "B/c.png", bench / "B/c.png"))
    psnr = 10 * math.log10(255**2 / ((sr - hr) ** 2).mean())
    assert record["results"][1]["sets"]["B"]["images"]["c"]["psnr_rgb"] == pytest.approx(psnr, abs=1e-9)
    assert read_image(images / "B/c_compare.png").pixels.shape == (40, 3 * 36 + 16, 3)


def test_evaluate_options_change_the_scores(bench, weights, tmp_path):
    def mean(*options):
        out = tmp_path / "results.json"
        assert call("evaluate", weights, "--data", f"only={bench / 'A'}", "--out", out, *options)[0] == 0
        return json.loads(out.read_text())["results"][0]["sets"]["only"]["mean"]["psnr_y"]

    plain = mean()
    assert mean("--scale", 2, "--border", 2, "--tile", "off") == plain
    assert mean("--border", 4) != plain
    assert mean("--self-ensemble") > plain
    assert mean("--tile", 32) == pytest.approx(plain, abs=0.05)
    for name in ("a", "b"):
        photo(tmp_path / "lr" / f"{name}x2.png", 20, 18, seed=9)
    assert mean("--lr", tmp_path / "lr") < plain - 0.3


def lr_of(hr, path):
    """Write the bicubic x2 input of an image, so that a right pair has the scores of an input that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, DecodedImage(tensor_to_pixels(bicubic_lr(image_to_tensor(read_image(hr)), 2)[0])))


@pytest.mark.parametrize("option", ["{}", "named={}", "one={}/000"])
@pytest.mark.parametrize("ending", ["", "_x2"])
def test_evaluate_with_lr_pairs_nested_folders(tmp_path, option, ending):
    for seed, name in enumerate(("000/0000", "000/0001", "001/0000")):
        lr_of(photo(tmp_path / "hr" / f"{name}.png", seed=seed), tmp_path / "lr" / f"{name}{ending}.png")

    def sets(*options):
        out = tmp_path / "scores.json"
        data = option.format(tmp_path / "hr")
        assert call("evaluate", "--bicubic", "--scale", 2, "--data", data, "--out", out, *options)[0] == 0
        return json.loads(out.read_text())["results"][0]["sets"]

    assert sets("--lr", tmp_path / "lr") == sets()


def test_evaluate_with_lr_refuses_several_draws(tmp_path):
    hr = photo(tmp_path / "hr" / "a.png")
    for draw in ("1", "2"):
        lr_of(hr, tmp_path / "lr" / draw / "ax2.png")
    options = ("--bicubic", "--scale", 2, "--data", tmp_path / "hr", "--lr", tmp_path / "lr")
    assert mistake("evaluate", *options) == (
        f"{hr}: expected an LR image a.* or ax2.* in {tmp_path}/lr, got {tmp_path}/lr/1/ax2.png and "
        f"{tmp_path}/lr/2/ax2.png; pass the folder that has the same subfolders as the HR folder."
    )


def test_evaluate_with_per_image_prints_each_image(bench):
    status, stdout, _ = call("evaluate", "--bicubic", "--scale", 2, "--data", bench, "--per-image")
    assert status == 0
    names = [line.split()[0] for line in stdout.splitlines()[1:-1]]
    assert names == ["A/a", "A/b", "A", "B/c", "B"]


@pytest.mark.parametrize("terminal", [False, True])
def test_evaluate_never_breaks_a_name(bench, weights, monkeypatch, terminal):
    name = "4x a name of many words and_one_long_word.safetensors"
    weights = weights.rename(weights.with_name(name))
    loaded = {metric: lambda sr, hr: 0.1234 for metric in ("lpips", "dists")}
    monkeypatch.setattr("selfsr.evaluation.metrics.load_metrics", lambda names, device, images: loaded)
    environment = {"COLUMNS": "80" if terminal else None, "NO_COLOR": "1", "TERM": "xterm"}  # a pipe is not limited
    environment |= {"FORCE_COLOR": "1"} if terminal else {}
    arguments = ("evaluate", str(weights), "--data", str(bench), "--metric", "lpips", "--metric", "dists")
    try:
        lines = CliRunner(env=environment).invoke(app, arguments).stdout.splitlines()
    finally:
        weights.rename(weights.with_name("tiny.safetensors"))
    titles = ("PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM-RGB", "LPIPS", "DISTS")
    assert all(title in lines[0] for title in ("upscaler", "images", *(() if terminal else titles)))
    assert sum(f"  {name}  " in line for line in lines) == 2
    assert all(any(title in line.split() for line in lines) for title in titles)
    assert sum(line.split()[-2:] == ["0.1234", "0.1234"] for line in lines) == 2
    assert " ".join(lines[-2 if terminal else -1 :]).endswith("Lower is better: LPIPS, DISTS.")


def test_evaluate_with_all_metrics_fits_into_80_columns(bench, weights, monkeypatch):
    names = list_extra_metrics()
    loaded = {metric: lambda sr, hr: 0.1234 for metric in names}
    monkeypatch.setattr("selfsr.evaluation.metrics.load_metrics", lambda names, device, images: loaded)
    environment = {"COLUMNS": "80", "FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb"}
    options = [part for name in names for part in ("--metric", name)]
    arguments = ("evaluate", str(weights), "--data", str(bench), *options)
    lines = CliRunner(env=environment).invoke(app, arguments).stdout.splitlines()
    assert "tiny.safetensors" in lines[1]
    shown = {word for line in lines for word in line.split()}
    assert {word for name in names for word in METRICS[name].title.split()} <= shown
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines) <= 80


def test_evaluate_refuses_wrong_options(bench, weights, tmp_path):
    data = ("--data", bench)
    assert mistake("evaluate", *data) == (
        "evaluate: expected a model, --bicubic or both, got neither; name a weights file or a shipped model."
    )
    assert mistake("evaluate", weights) == (
        "evaluate: expected a folder of images, got none; name one or more with --data."
    )
    assert mistake("evaluate", weights, *data, "--scale", 4) == (
        f"evaluate: expected --scale 2, the scale of {weights}, got 4; leave --scale out, or choose another model."
    )
    assert mistake("evaluate", "--bicubic", *data) == (
        "evaluate: expected --scale N with --bicubic, got none; add --scale 2, 3 or 4."
    )
    assert mistake("evaluate", weights, *data, "--metric", "psnr_y") == (
        "evaluate: expected an additional metric for --metric (self_similarity, lpips, dists, niqe, fid, kid, "
        "pyiqa:musiq, pyiqa:maniqa, pyiqa:clipiqa, pyiqa:topiq_nr, pyiqa:topiq_fr), got psnr_y, which is always "
        "computed; leave it out."
    )
    assert mistake("evaluate", weights, "--data", bench / "B", "--border", 500) == (
        f"{bench}/B/c.png: expected at least 1011 x 1011 pixels (height x width) for --border 500, a multiple of the "
        "scale 2, got 40 x 36; choose a smaller --border, or leave the image out."
    )
    assert "expected a folder of images" in mistake("evaluate", weights, "--data", tmp_path / "none")
    assert "got a path that does not exist" in mistake("evaluate", weights, *data, "--lr", tmp_path / "none")
    assert mistake("evaluate", tmp_path / "none.pth", *data).startswith("weights ")


def test_upscale_of_one_image_writes_the_file(weights, tmp_path):
    source = photo(tmp_path / "a.png", icc=bytes(16) + b"RGB " + bytes(108))
    target = tmp_path / "new" / "b.tif"
    status, stdout, stderr = call("upscale", source, "-m", weights, "-o", target, "--device", "cpu")
    assert (status, stdout) == (0, f"1 of 1 images written to {target}.\n")
    assert stderr.startswith("EDSR x2 on cpu in ")
    out = read_image(target)
    assert out.pixels.shape == (80, 72, 3)
    assert out.icc == read_image(source).icc


def test_upscale_keeps_orientation(weights, tmp_path):
    """A photo that its camera held sideways comes out upright, and says nothing of turning it again."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert call("upscale", tmp_path / "a.jpg", "-m", weights, "-o", tmp_path / "b.jpg")[0] == 0
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.size == (40, 60)
        assert image.getexif().get(0x0112, 1) == 1


def test_upscale_a_folder_with_a_bad_file(weights, tmp_path):
    for name in ("in/a.png", "in/sub/b.jpg"):
        photo(tmp_path / name)
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    args = ("upscale", tmp_path / "in", "-m", weights, "-o", tmp_path / "out", "--tile", "32")
    status, stdout, stderr = call(*args)
    assert status == 1
    assert stdout == f"2 of 3 images written to {tmp_path / 'out'}.\n"
    assert f"selfsr: {tmp_path}/in/bad.png: expected a readable image, got" in stderr
    assert f"selfsr: 1 of 3 images failed, for the reasons above: {tmp_path}/in/bad.png." in stderr
    assert read_image(tmp_path / "out" / "sub" / "b.png").pixels.shape == (80, 72, 3)
    # the good ones are there now
    assert "which exists (and 1 more); add --overwrite" in mistake(*args)
    (tmp_path / "in" / "bad.png").unlink()
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    status, stdout, _ = call(*args, "--skip-existing")
    skipped = "2 skipped because their outputs exist"
    assert (status, stdout) == (0, f"0 of 0 images written to {tmp_path / 'out'}, {skipped}.\n")
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before
    assert call(*args, "--overwrite")[0] == 0
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns > before


def test_upscale_options_change_the_pixels(weights, tmp_path):
    source = photo(tmp_path / "a.png", 70, 50)

    def pixels(*options):
        assert call("upscale", source, "-m", weights, "-o", tmp_path / "b.png", "--overwrite", *options)[0] == 0
        return read_image(tmp_path / "b.png").pixels.astype(int)

    plain = pixels("--precision", "float32")
    assert np.array_equal(pixels("--precision", "float32", "--tile", "off"), plain)
    assert np.abs(pixels("--tile", 32, "--overlap", 16) - plain).max() <= 1
    assert not np.array_equal(pixels("--self-ensemble", "--precision", "float32"), plain)


def test_upscale_refuses_wrong_options(weights, tmp_path):
    source = photo(tmp_path / "a.png")
    out = ("-o", tmp_path / "b.png")
    assert mistake("upscale", source, "-m", weights, *out, "--overwrite", "--skip") == (
        "upscale: expected --overwrite or --skip-existing, got both; give one of them."
    )
    assert mistake("upscale", source, "-m", weights, *out, "--tile", "huge") == (
        "upscale: expected --tile auto, off or a number of pixels, got 'huge'; use one of these."
    )
    assert mistake("upscale", tmp_path / "c.png", "-m", weights, *out).startswith(
        f"{tmp_path / 'c.png'}: expected an image or a folder of images"
    )
    assert mistake("upscale", source, "-m", tmp_path / "none.pth", *out).startswith("weights ")
    assert not (tmp_path / "b.png").exists()
    status, _, stderr = call("upscale", source, "-m", weights, *out, "--format", "gif")
    assert status == 2
    assert "gif" in stderr


def test_upscale_where_nothing_can_be_written(weights, tmp_path):
    source = photo(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file") as error:
        call("upscale", source, "-m", weights, "-o", tmp_path / "file" / "out")
    assert error.value.filename is not None


@pytest.mark.parametrize("verb", ["evaluate", "upscale"])
def test_help_has_examples(verb):
    status, stdout, _ = call(verb, "--help")
    assert status == 0
    assert f"selfsr {verb} " in stdout
    assert "--self-ensemble" in stdout


def test_upscale_by_another_scale_than_the_model_resizes_its_output(weights, tmp_path):
    source = photo(tmp_path / "a.png")
    options = ("-m", weights, "--precision", "float32", "--device", "cpu")
    assert call("upscale", source, *options, "-o", tmp_path / "x2.png")[0] == 0
    model_output = image_to_tensor(read_image(tmp_path / "x2.png"))
    for scale in (4, 3, 1):
        status, _, stderr = call("upscale", source, *options, "-o", tmp_path / f"x{scale}.png", "--scale", scale)
        assert status == 0
        assert f"The model upscales x2; bicubic interpolation then resizes its output to x{scale}." in stderr
        expected = tensor_to_pixels(imresize(model_output, size=(40 * scale, 36 * scale))[0])
        difference = read_image(tmp_path / f"x{scale}.png").pixels.astype(int) - expected
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 1e-3
    assert "resizes" not in call("upscale", source, *options, "-o", tmp_path / "y.png", "--scale", 2)[2]


def test_evaluate_looks_at_all_headers_first(bench, weights, tmp_path):
    (bench / "B" / "c.png").write_bytes(b"no image")
    (bench / "B" / "d.png").write_bytes(b"")
    images, out = tmp_path / "images", tmp_path / "s.json"
    sentence = mistake("evaluate", weights, "--data", bench, "--save-images", images, "--out", out)
    assert sentence.startswith(f"{bench}/B/c.png: expected a readable image, got ")
    assert sentence.endswith(" (1 more like this).")
    assert not images.exists()
    photo(bench / "B" / "c.png", 14, 40)
    (bench / "B" / "d.png").unlink()
    assert mistake("evaluate", weights, "--data", bench) == (
        f"{bench}/B/c.png: expected at least 15 x 15 pixels (height x width), a multiple of the scale 2, got 14 x 40; "
        "leave it out."
    )
    photo(bench / "B" / "c.png", 15 + 1, 40)
    assert call("evaluate", weights, "--data", bench)[0] == 0


def test_evaluate_keeps_the_scores_when_an_image_fails_later(bench, tmp_path):
    pixels = (bench / "A" / "b.png").read_bytes()
    (bench / "A" / "b.png").write_bytes(pixels[: len(pixels) // 2])  # its header is intact
    out = tmp_path / "s.json"
    status, stdout, stderr = call("evaluate", "--bicubic", "--scale", 2, "--data", bench, "--out", out)
    assert status == 1
    assert f"selfsr: {bench}/A/b.png: expected a readable image, got" in stderr
    assert "selfsr: 1 images failed; the means are over the others." in stderr
    assert [row.split()[:3] for row in stdout.splitlines()[1:-1]] == [["A", "bicubic", "1"], ["B", "bicubic", "1"]]
    record = json.loads(out.read_text())
    assert [list(scores["images"]) for scores in record["results"][0]["sets"].values()] == [["a"], ["c"]]
    assert len(record["failures"]) == 1


def test_evaluate_keeps_the_scores_when_it_is_interrupted(bench, tmp_path, monkeypatch):
    from selfsr.evaluation import reading

    real = reading.read_image

    def stopped(path):
        if path.name == "b.png":
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(reading, "read_image", stopped)
    out = tmp_path / "s.json"
    call("evaluate", "--bicubic", "--scale", 2, "--data", bench, "--out", out)
    record = json.loads(out.read_text())
    assert record["complete"] is False
    assert list(record["results"][0]["sets"]["A"]["images"]) == ["a"]


def test_evaluate_saves_every_image_whatever_its_name(tmp_path):
    for seed, name in enumerate(("a", "a_compare", "a_compare2")):
        photo(tmp_path / "hr" / f"{name}.png", seed=seed)
    images = tmp_path / "images"
    assert call("evaluate", "--bicubic", "--scale", 2, "--data", tmp_path / "hr", "--save-images", images)[0] == 0
    widths = {path.stem: read_image(path).width for path in sorted((images / "hr").iterdir())}
    outputs = dict.fromkeys(("a", "a_compare", "a_compare2"), 36)
    comparisons = dict.fromkeys(("a_compare3", "a_compare_compare", "a_compare2_compare"), 3 * 36 + 16)
    assert widths == outputs | comparisons


@pytest.mark.parametrize(("data", "folder"), [("bench/A", "bench"), ("bench/A", "bench/A/out"), ("bench", "bench/out")])
def test_evaluate_never_saves_among_the_inputs(bench, tmp_path, data, folder):
    before = {path: path.read_bytes() for path in bench.rglob("*.png")}
    options = ("--bicubic", "--scale", 2, "--data", tmp_path / data)
    assert mistake("evaluate", *options, "--save-images", tmp_path / folder) == (
        f"evaluate: expected a folder for --save-images outside of {tmp_path / data}, got {tmp_path / folder}; "
        "choose another one."
    )
    assert {path: path.read_bytes() for path in bench.rglob("*.png")} == before


def test_evaluate_shows_names_as_they_are(tmp_path):
    folder = tmp_path / "[red]s"
    for seed, name in enumerate(("[bold]x", ":cat:", "[x]", "a[/]")):
        photo(folder / f"{name.replace('/', '_')}.png", seed=seed)
    (folder / "more.txt").touch()
    status, stdout, stderr = call("evaluate", "--bicubic", "--scale", 2, "--data", folder, "--per-image")
    assert status == 0
    shown = [line.split()[0] for line in stdout.splitlines()[1:-1]]
    assert shown == [f"[red]s/{name}" for name in (":cat:", "[bold]x", "[x]", "a[_]")] + ["[red]s"]
    assert "[red]s: 1 file of another kind left out (1 .txt)." in stderr


def test_evaluate_expands_the_home_folder_after_a_name(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    status, stdout, _ = call("evaluate", "--bicubic", "--scale", 2, "--data", "mine=~/bench/A")
    assert (status, stdout.splitlines()[1].split()[0]) == (0, "mine")
    assert mistake("evaluate", "--bicubic", "--scale", 2, "--data", "../../x=~/bench/A") == (
        "evaluate: expected a plain name in --data NAME=DIR, got ../../x; use another name."
    )


def test_no_option_is_given_in_vain(bench, weights, tmp_path):
    data = ("--bicubic", "--scale", 2, "--data", bench)
    for option in (("--tile", "32"), ("--self-ensemble",)):
        assert mistake("evaluate", *data, *option) == (
            f"evaluate: expected no {option[0]} without a model, where it does nothing, got one; leave {option[0]} out."
        )
    assert call("evaluate", *data)[0] == 0
    source = photo(tmp_path / "a.png")
    options = ("-m", weights, "-o", tmp_path / "b.png", "--tile", "off", "--overlap", 8)
    assert mistake("upscale", source, *options).startswith("upscale: expected no --overlap with --tile off")
    assert mistake("evaluate", *data, "--out", tmp_path).startswith("evaluate: expected a JSON file to write for --out")
