"""Feed broken and hostile input to everything that reads it, for as long as you like.

    python tests/fuzz.py --minutes 30
    python tests/fuzz.py --minutes 5 --target weights --seed 7

Each target makes an input, mostly by mutating a good one, and hands it to the function or command that reads it.
Allowed is a right result, or one sentence (`InputError`, or an `OSError` that names a file). A finding is anything
else: another exception, more than `LIMIT_S` seconds, a file written outside the folder, code that ran, or pixels that
another decoder does not give. Findings are written to `fuzz-findings/` with the input that causes them; the inputs
are a function of the seed and the number of the try, so that each can be made again.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from selfsr.errors import InputError

LIMIT_S = 20
FINDINGS = Path("fuzz-findings")
CANARY = "SELFSR_FUZZ_CANARY"


class Finding(Exception):
    """What must not happen."""


# --- mutation -------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one to four random changes: flipped, cut, doubled, removed, overwritten."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not content:
            return bytes(rng.randbytes(rng.randint(0, 64)))
        at = rng.randrange(len(content))
        length = rng.choice([1, 1, 2, 4, 16, 256])
        match rng.randrange(7):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at:]
            case 2:
                content[at:at] = content[at : at + length]
            case 3:
                del content[at : at + length]
            case 4:
                content[at : at + length] = rng.randbytes(length)
            case 5:
                content[at : at + 4] = struct.pack(
                    rng.choice(["<I", ">I"]), rng.choice([0, 1, 2**16, 2**31, 2**32 - 1])
                )
            case 6:
                content[at : at + length] = bytes(length)
    return bytes(content)


HOSTILE_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 10**12, 1e308, float("nan"), float("inf"), -0.0, "", "a", "off", "no", "null",
    "../..", "/", "~", "\x00", "é", "[]", "2024", [], [1, 2], {}, {"kind": "edsr"}, {"a": {"b": 1}}, "x" * 3000,
]  # fmt: skip


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Return a document with one random node replaced, removed, doubled or given a wrong key."""
    paths = list(_paths(tree))
    path = rng.choice(paths)
    if not path:
        return rng.choice(HOSTILE_VALUES)
    tree = json.loads(json.dumps(tree, default=str))
    node = tree
    for key in path[:-1]:
        node = node[key]
    match rng.randrange(4):
        case 0 | 1:
            node[path[-1]] = rng.choice(HOSTILE_VALUES)
        case 2:
            del node[path[-1]]
        case 3:
            if isinstance(node, dict):
                node[str(path[-1]) + rng.choice(["s", "_", ".x", ""])] = rng.choice(HOSTILE_VALUES)
    return tree


def _paths(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _paths(value, (*path, key))


# --- what is allowed ------------------------------------------------------------------------------------------------


def is_sentence(text: str) -> bool:
    """Tell whether an error message is one short paragraph that a person can read."""
    return bool(text.strip()) and "\n\n" not in text.strip() and len(text) < 3000 and "Traceback" not in text


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Let the errors through that a user may get; turn all others into findings."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except InputError as error:
        if not is_sentence(str(error)):
            raise Finding(f"no sentence: {str(error)[:500]!r}") from error
    except OSError as error:
        if error.filename is None:
            raise Finding(f"an OSError that names no file: {error!r}") from error
    except (Finding, KeyboardInterrupt, TimeoutError):
        raise
    except BaseException as error:
        raise Finding(f"{type(error).__name__}: {error}") from error


def run_command(*arguments: str) -> tuple[int, str]:
    """Run `selfsr ARGUMENTS` in this process; return the exit status and what it printed on stderr.

    Raises:
        Finding: it ends with a traceback, or fails without a sentence.
    """
    import selfsr.cli

    out, err = io.StringIO(), io.StringIO()
    former, sys.argv = sys.argv, ["selfsr", *arguments]
    status: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            selfsr.cli.main()
    except SystemExit as stop:
        status = stop.code
    except (KeyboardInterrupt, TimeoutError):
        raise
    except BaseException as error:
        raise Finding(f"selfsr {' '.join(arguments)}: {type(error).__name__}: {error}") from error
    finally:
        sys.argv = former
    status = 0 if status is None else status
    if status and not (err.getvalue() + out.getvalue()).strip():
        raise Finding(f"selfsr {' '.join(arguments)}: exit status {status} without a word")
    return status, err.getvalue()


# --- targets: each takes a random generator and an empty folder ------------------------------------------------------


def fuzz_recipes(rng: random.Random, folder: Path) -> None:
    """Recipes: mutated documents and mutated bytes, in several encodings."""
    from selfsr.recipe import Recipe, dump_recipe, load_recipe, parse_recipe, read_yaml, shipped_recipes

    path = folder / "recipe.yaml"
    text = rng.choice(list(shipped_recipes().values())).read_text()
    match rng.randrange(4):
        case 0:
            path.write_bytes(mutate(text.encode(), rng))
        case 1:
            path.write_bytes(text.encode(rng.choice(["utf-16", "utf-16-le", "utf-8-sig", "latin-1", "utf-32"])))
        case 2:
            path.write_bytes(rng.randbytes(rng.randint(0, 300)))
        case 3:
            tree = read_yaml(text, "recipe")
            for _ in range(rng.randint(1, 3)):
                tree = mutate_tree(tree, rng)
            path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    with allowed():
        recipe = load_recipe(path)
        assert isinstance(recipe, Recipe)
        again = parse_recipe(read_yaml(dump_recipe(recipe), "dump"), "dump")
        if dump_recipe(again) != dump_recipe(recipe):
            raise Finding("a recipe changes when it is written and read again")


def fuzz_settings(rng: random.Random, folder: Path) -> None:
    """`--set`: random paths and values; a path is taken as it stands."""
    from selfsr.recipe import load_recipe, shipped_recipes

    paths = [
        "steps",
        "data.hr",
        "name",
        "method.terms.pixel",
        "method.terms.pixel.weight",
        "network",
        "evaluate.sets.a",
        "evaluate.sets.a.hr",
        "evaluate.best_by",
        "data.cache",
        "data.masks",
        "data.degrade",
        "start_from",
        "schedule.kind",
    ]
    path = rng.choice([*paths, "a.b.c", "", ".", "data..hr", "steps.x", "optimizers.g.lr"])
    value = rng.choice(
        [str(rng.choice(HOSTILE_VALUES)), "photos #2", "[x] y", "#Dia 2", "{", "- a", "a: b", "!!python/x"]
    )
    setting = rng.choice([f"{path}={value}", path, f"{path}=", f"={value}"])
    with allowed():
        recipe = load_recipe(rng.choice(list(shipped_recipes().values())), [setting])
        sets = recipe.evaluate.sets if recipe.evaluate else {}
        folders = {"data.hr": recipe.data.hr, "evaluate.sets.a.hr": sets["a"].hr if "a" in sets else None}
        if path in folders and str(folders[path]) not in (str(Path(value)), os.path.expanduser(value)):
            raise Finding(f"--set {setting!r} gives {folders[path]!r}")
        if set(recipe.name) <= {"."} or "/" in recipe.name:
            raise Finding(f"--set {setting!r} gives a run folder outside of runs")


IMAGE_FORMATS = [
    ("PNG", ".png"),
    ("JPEG", ".jpg"),
    ("WEBP", ".webp"),
    ("TIFF", ".tif"),
    ("BMP", ".bmp"),
    ("TGA", ".tga"),
    *([("AVIF", ".avif")] if features.check("avif") else []),
    *([("JPEG2000", ".jp2")] if features.check("jpg_2000") else []),
]


def _good_image(rng: random.Random) -> tuple[bytes, str]:
    mode = rng.choice(["RGB", "L", "RGBA", "LA", "P", "1", "I;16", "CMYK"])
    form, suffix = rng.choice(IMAGE_FORMATS)
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (17, 23, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels.view(np.uint16)[..., 0].copy())
    else:
        image = (
            Image.fromarray(pixels).convert("RGB").convert(mode)
            if mode not in ("RGBA", "LA")
            else (Image.fromarray(pixels).convert(mode))
        )
    options: dict[str, Any] = {"progressive": True} if form == "JPEG" and rng.random() < 0.5 else {}
    if form in ("PNG", "JPEG", "WEBP", "AVIF") and rng.random() < 0.5:
        exif = Image.Exif()
        exif[0x010F], exif[0x0112], exif[0x011A] = "Maker", rng.randint(0, 9), 300
        exif[0x8769] = {0x829A: 0.25, 0x927C: rng.randbytes(40), 0xA002: 23, 0xA003: 17}
        options["exif"] = exif.tobytes()
    if form in ("PNG", "JPEG", "WEBP", "AVIF") and rng.random() < 0.3:
        orientation = f'tiff:Orientation="{rng.randint(0, 9)}"' if "exif" not in options else ""
        packet = f'<rdf:Description xmp:Label="é" {orientation} tiff:ImageWidth="23"/>'
        if form == "PNG":
            options["pnginfo"] = PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", packet, zip=rng.random() < 0.5)
        else:
            options["xmp"] = packet.encode()
    buffer = io.BytesIO()
    try:
        image.save(buffer, form, **options)
    except (OSError, ValueError, KeyError):
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, form, **options)
    return buffer.getvalue(), suffix


def _check_writing(image: Any, folder: Path) -> None:
    """Write an image in all formats and read it back: what is written is readable, with its pixels."""
    from dataclasses import replace

    from selfsr.images.files import read_image, write_image

    for suffix in (".png", ".tif", ".jpg", ".webp", ".bmp"):
        if image.bits == 16 and suffix not in (".png", ".tif"):
            continue
        path = folder / f"written{suffix}"
        write_image(path, replace(image, alpha=None) if suffix in (".jpg", ".bmp") else image)
        again = read_image(path)
        if (again.xmp is None) != (image.xmp is None or suffix == ".bmp"):
            raise Finding(f"XMP data {again.xmp!r} after writing {image.xmp!r} as {suffix}")
        if suffix != ".jpg" and not np.array_equal(*np.broadcast_arrays(again.pixels, image.pixels)):
            raise Finding(f"other pixels after writing as {suffix}")


def _check_cut(data: bytes, suffix: str, rng: random.Random, folder: Path) -> None:
    """Cut a file: it is refused, or read with all of its pixels."""
    from selfsr.images.files import read_image

    path, cut = folder / f"complete{suffix}", folder / f"cut{suffix}"
    path.write_bytes(data)
    cut.write_bytes(data[: len(data) - rng.choice([1, 2, 3, 4, rng.randint(1, 40), rng.randrange(1, len(data))])])
    expected = read_image(path)
    with contextlib.suppress(InputError):
        if not np.array_equal(read_image(cut).pixels, expected.pixels):
            raise Finding(f"a file without its last {len(data) - cut.stat().st_size} bytes is read with other pixels")


def fuzz_images(rng: random.Random, folder: Path) -> None:
    """Image files of every format, mutated; what is read must be what Pillow reads."""
    from selfsr.images.files import read_header, read_image

    data, suffix = _good_image(rng)
    whole = rng.random() < 0.1
    path = folder / f"image{suffix}"
    path.write_bytes(data if whole else mutate(data, rng))
    with allowed():
        header = read_header(path)
        image = read_image(path)
        if (image.height, image.width) != (header.height, header.width):
            raise Finding(f"header says {header}, the pixels are {image.height} x {image.width}")
        _check_writing(image, folder)
        with contextlib.suppress(Exception), Image.open(path) as other:
            if other.mode in ("L", "RGB", "RGBA") and image.bits == 8 and not other.getexif() and not image.xmp:
                expected = (
                    np.asarray(other)[..., : image.channels] if other.mode != "L" else np.asarray(other)[..., None]
                )
                if expected.shape == image.pixels.shape and not np.array_equal(expected, image.pixels):
                    raise Finding("the pixels are not those that Pillow reads")
    with allowed():
        if whole:
            read_image(path)
        _check_cut(data, suffix, rng, folder)


def _small_specs() -> list[Any]:
    from selfsr.nets.spandrel.rcan import RcanSpec
    from selfsr.nets.spandrel.rrdb import RrdbSpec
    from selfsr.nets.vdsr import VdsrSpec

    return [
        VdsrSpec(features=4, convs=3),
        RrdbSpec(features=4, blocks=1),
        RcanSpec(features=8, groups=1, blocks=1, reduction=4),
    ]


def mutate_pickle(data: bytes, rng: random.Random) -> bytes:
    """Return a file with names or opcodes of its pickles replaced; its tensors stay."""
    names = [b"torch.nn.parameter", b"Parameter", b"OrderedDict", b"collections", b"_rebuild_tensor_v2", b"_modules"]
    for _ in range(rng.randint(1, 3)):
        old = rng.choice([name for name in names if name in data] or [b"\x80"])
        at = data.index(old)
        new = rng.choice([*names, b"os", b"system", b"builtins", b"eval"])
        new = new.ljust(len(old), b"_")[: len(old)] if rng.random() < 0.7 else new
        data = data[:at] + new + data[at + len(old) :]
    if rng.random() < 0.5:
        at = rng.randrange(min(len(data), 6000))
        data = data[:at] + bytes([rng.choice(b"Rb\x81oitu}]es.0(2qrjhQ\x93\x92N")]) + data[at + 1 :]
    return data


def random_pickle(rng: random.Random, canary: Path) -> bytes:
    """Return a pickle of random opcodes over names that would write `canary`."""
    text = f"open({str(canary)!r}, 'w')".encode()
    pieces = [
        b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nexec\n", b"ccollections\nOrderedDict\n",
        b"ctorch.nn.parameter\nParameter\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n",
        b"cargparse\nNamespace\n", b"cselfsr.fileio\nwrite_atomic\n", b"cbuiltins\ngetattr\n", b"czoo\nNet\n",
        b"X" + struct.pack("<I", len(text)) + text, b"X\x08\x00\x00\x00_modules", b"(", b")", b"}", b"]", b"K\x01",
        b"J\xff\xff\xff\x7f", b"\x85", b"\x86", b"\x87", b"R", b"R", b"R", b"b", b"b", b"\x81", b"\x81", b"o", b"t",
        b"s", b"u", b"a", b"e", b"q\x01", b"h\x01", b"r\xff\xff\xff\x7f", b"0", b"1", b"2", b"Q", b"\x93", b"\x92",
        b"\x8f", b"\x90", b"\x82\x01", b"N", b"\x88", b"\x8a\xff", b"\x8e" + b"\xff" * 7 + b"\x7f",
    ]  # fmt: skip
    return b"\x80" + bytes([rng.choice([2, 4])]) + b"".join(rng.choices(pieces, k=rng.randint(1, 25))) + b"."


class _Runs:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def fuzz_weights(rng: random.Random, folder: Path) -> None:
    """Weights files and pickles: mutated good ones, and pickles that want to run something."""
    from selfsr.nets import AnyNetwork  # noqa: F401 - the union must be importable with a broken file around
    from selfsr.nets.edsr import EdsrSpec
    from selfsr.nets.weights import load_model

    torch.manual_seed(0)
    tensors = EdsrSpec(features=4, blocks=1).build(2).state_dict()
    canary = folder / "canary"
    kind = rng.randrange(10)
    path = folder / (
        "weights.safetensors" if kind in (0, 1, 8) else rng.choice(["weights.pth", "weights.pt", "weights.ckpt"])
    )
    evil = _Runs(*rng.choice([
        (os.system, f"touch {canary}"), (eval, f"open({str(canary)!r}, 'w')"), (exec, f"open({str(canary)!r}, 'w')"),
        (Path.touch, canary), (os.mkdir, str(canary)), (open, str(canary), "w"),
    ]))  # fmt: skip
    if kind == 0:
        save_file(tensors, path)
        path.write_bytes(mutate(path.read_bytes(), rng))
    elif kind == 1:
        changed = {name: t for name, t in tensors.items() if rng.random() < 0.9}
        changed[rng.choice(["x", "head.0.weight", ""]) or "y"] = torch.zeros(rng.choice([(), (1,), (3, 0), (2, 2, 2)]))
        save_file(
            changed, path, metadata={rng.choice(["recipe", "scale", "architecture"]): str(rng.choice(HOSTILE_VALUES))}
        )
    elif kind == 2:
        torch.save({rng.choice(["params", "params_ema", "state_dict", "x"]): tensors, "epoch": 3}, path)
        path.write_bytes(mutate(path.read_bytes(), rng))
    elif kind == 3:
        torch.save({"params": tensors, "evil": evil}, path)
    elif kind == 4:
        path.write_bytes(pickle.dumps({"params": tensors, "evil": [evil]}, protocol=rng.randint(0, 4)))
    elif kind in (6, 7):
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ModuleDict({"a": torch.nn.BatchNorm2d(4)}))
        net.extra = rng.choice([None, evil, np.float64(1), argparse.Namespace(a=1)])
        options = {"pickle_protocol": rng.choice([2, 4]), "_use_new_zipfile_serialization": kind == 6}
        torch.save(rng.choice([net, {"model": net, "epoch": 3}]), path, **options)
        if kind == 7:
            path.write_bytes(mutate_pickle(path.read_bytes(), rng))
    elif kind == 8:
        spec = rng.choice([EdsrSpec(features=4, blocks=1), *_small_specs()])
        tensors = spec.build(2).state_dict()
        old = rng.choice([name for name in tensors if re.search(r"\d", name)])
        new = re.sub(r"\d+", lambda match: str(rng.choice([match[0], -1, 7, 10**4, 10**9])), old)
        tensors = {name.replace(old, new): tensor.clone() for name, tensor in tensors.items()}
        entry = mutate_tree(json.loads(spec.model_dump_json()), rng)
        metadata = {"selfsr_network": json.dumps(entry), "scale": rng.choice(["2", "4", "1e9", ""]), "channels": "3"}
        save_file(tensors, path, metadata if rng.random() < 0.5 else None)
    elif kind == 9:
        prefix = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
        path.write_bytes(prefix + random_pickle(rng, canary))
    else:
        torch.save(rng.choice([tensors, [1, 2], "text", {"a": 1}, {}, None, {"params": {}}]), path)
        if rng.random() < 0.5:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("../../outside", b"x")
    with allowed():
        model = load_model(path)
        out = model.upscale(torch.rand(1, 3 if model.channels != 1 else 1, 8, 8))
        if out.shape[-2:] != (8 * model.scale, 8 * model.scale):
            raise Finding(f"a model of scale {model.scale} gives {list(out.shape)} for 8 x 8")
    if canary.exists():
        raise Finding("the weights file ran code")


def fuzz_masks(rng: random.Random, folder: Path) -> None:
    """Mask files next to a folder of images, through `selfsr data check --masks`."""
    from scipy.io import savemat

    images, masks = folder / "hr", folder / "masks"
    images.mkdir()
    masks.mkdir()
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(images / "a.png")
    suffix = rng.choice([".png", ".mat"])
    path = masks / f"a{suffix}"
    if suffix == ".png":
        values = rng.choice([[0, 1], [0, 255], [0, 7, 255]])
        Image.fromarray(np.array(values, np.uint8)[np.random.default_rng(0).integers(0, len(values), (40, 40))]).save(
            path
        )
    else:
        name = rng.choice(["mask", "data", "x"])
        savemat(
            path,
            {name: np.ones(rng.choice([(40, 40), (40, 39), (1, 40, 40), (0, 0)]), rng.choice([bool, float, np.int16]))},
        )
    if rng.random() < 0.8:
        path.write_bytes(mutate(path.read_bytes(), rng))
    run_command("data", "check", str(images), "--crop", "16", "--masks", str(masks))


_RUN: dict[str, Path] = {}


def _good_run() -> Path:
    """Return a finished tiny run, made once."""
    if "run" not in _RUN:
        from selfsr.recipe import parse_recipe
        from selfsr.training.loop import fit

        root = Path(tempfile.mkdtemp(prefix="selfsr-fuzz-run-"))
        (root / "photos").mkdir()
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / f"{index}.png")
        document = {
            "name": "tiny", "scale": 2, "steps": 4, "batch": 2, "crop_px": 16, "workers": 0, "precision": "float32",
            "network": {"kind": "edsr", "features": 4, "blocks": 1},
            "data": {"kind": "folder", "hr": str(root / "photos")},
            "method": {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}},
            "optimizers": {"g": {"kind": "adam"}}, "schedule": {"kind": "constant"}, "log": {"every_steps": 1},
            "checkpoints": {"every_steps": 2}, "evaluate": {"every_steps": 2, "sets": {"a": str(root / "photos")}},
        }  # fmt: skip
        with contextlib.redirect_stderr(io.StringIO()):
            fit(parse_recipe(document, "fuzz"), root / "run", device="cpu")
        _RUN["run"] = root / "run"
    return _RUN["run"]


def _mutate_document(text: str, suffix: str, rng: random.Random) -> str:
    """Return a JSON or YAML document, or one line of JSON Lines, with a wrong value, key or type in it."""
    try:
        if suffix == ".yaml":
            return yaml.safe_dump(mutate_tree(yaml.safe_load(text), rng))
        lines = text.splitlines() if suffix == ".jsonl" else [text]
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(mutate_tree(json.loads(lines[at]), rng))
    except (ValueError, yaml.YAMLError):  # broken by an earlier change
        return text
    return "\n".join(lines) + "\n"


def fuzz_runs(rng: random.Random, folder: Path) -> None:
    """Run folders with bytes flipped or files missing, through report and resume."""
    run = folder / "run"
    shutil.copytree(_good_run(), run)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(files)
        match rng.randrange(7):
            case 0:
                path.unlink(missing_ok=True)
            case 1:
                path.write_bytes(b"")
            case 2 | 3 | 4 if path.suffix in (".json", ".jsonl") and path.exists():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                with contextlib.suppress(ValueError, IndexError):
                    at = rng.randrange(len(lines)) if path.suffix == ".jsonl" else 0
                    document = json.loads(lines[at] if path.suffix == ".jsonl" else "\n".join(lines))
                    lines[at : None if path.suffix == ".json" else at + 1] = [json.dumps(mutate_tree(document, rng))]
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            case _:
                path.write_bytes(mutate(path.read_bytes() if path.exists() else b"", rng))
    if rng.random() < 0.6:
        run_command("report", str(run), "-o", str(folder / "report.html"))
    else:
        run_command("train", str(run), "--resume", "--device", "cpu")


def fuzz_names(rng: random.Random, folder: Path) -> None:
    """Folders and images with hostile names, through the commands that read folders; inputs stay as they are."""
    names = [
        "a b",
        "[bold]x",
        "ü",
        "名" * 60,
        "名" * 83,
        "n" * 251,
        "#2",
        "-x",
        "a.b.c",
        "x2",
        "a_x2",
        ".hidden",
        "nl\nx",
        "tab\t",
        "'\"",
        "%s",
        "$(x)",
        "~",
        "a_compare",
        "a",
        "box2",
        "box3",
        ":cat:",
        "[/x]".replace("/", "|"),
        "back\\slash",
    ]
    raw = os.fsdecode(b"\xff\xfe" + bytes([rng.randrange(128, 256)]))
    images = folder / rng.choice([*names, raw])
    images.mkdir()
    for name in rng.sample([*names, raw], 3):
        with contextlib.suppress(OSError):
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(
                images / f"{name}{rng.choice(['.png', '.PNG', '.jpg'])}"
            )
    if rng.random() < 0.3:
        (images / "loop").symlink_to(images / "loop")
    if rng.random() < 0.3:
        (images / "nothing.png").symlink_to(images / "not there")
    if rng.random() < 0.3:
        (images / "loop.png").symlink_to(images / "loop.png")
    inputs = {path: path.read_bytes() for path in images.iterdir() if path.is_file()}
    output = folder / "out" if rng.random() < 0.5 else images / "out"
    match rng.randrange(6):
        case 0:
            run_command("data", "check", str(images), "--crop", "16")
        case 3:
            for _ in range(2):
                run_command("data", "prepare", str(images), "-o", str(output), "--size", "16")
        case 4:
            options = ["--data", rng.choice(["", "n=", "../n="]) + str(images), "--save-images", str(output)]
            options += ["--per-image", "--out", str(folder / "scores.json")]
            run_command("evaluate", "--bicubic", "--scale", "2", *options)
        case 5:
            weights = _good_run() / "weights" / "last.safetensors"
            for more in ([], ["--overwrite"]):
                options = ["-o", str(output), "--scale", "3", "--device", "cpu", *more]
                run_command("upscale", str(images), "-m", str(weights), *options)
        case 1:
            run_command("degrade", str(images), "-o", str(folder / "lr"), "--preset", "bsrgan_ssl")
        case 2:
            weights = _good_run() / "weights" / "last.safetensors"
            run_command("upscale", str(images), "-m", str(weights), "-o", str(folder / "out"), "--device", "cpu")
    if any(not path.exists() or path.read_bytes() != content for path, content in inputs.items()):
        raise Finding("an input was changed")


TARGETS: dict[str, Callable[[random.Random, Path], None]] = {
    "recipes": fuzz_recipes,
    "settings": fuzz_settings,
    "images": fuzz_images,
    "weights": fuzz_weights,
    "masks": fuzz_masks,
    "runs": fuzz_runs,
    "names": fuzz_names,
}


# --- the loop ---------------------------------------------------------------------------------------------------------


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError


@functools.cache
def _warm_up() -> None:
    """Import what the targets use and train the tiny run, before the time of a try counts."""
    import spandrel  # noqa: F401

    from selfsr.nets.weights import load_model

    load_model(_good_run() / "weights" / "last.safetensors")


def run_try(target: str, seed: int, keep: Path | None = None) -> str | None:
    """Run one try of a target; return what was found, or None. The input is copied to `keep` if something was."""
    _warm_up()
    rng = random.Random(f"{target}/{seed}")
    former_folder = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="selfsr-fuzz-") as place:
        outer = Path(place)
        inner = outer / "inside"
        inner.mkdir()
        os.chdir(inner)
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, _too_long)
            signal.alarm(LIMIT_S)
        found = None
        try:
            TARGETS[target](rng, inner)
        except TimeoutError:
            found = f"more than {LIMIT_S} s"
        except Finding as error:
            found = (
                f"{error}\n{''.join(traceback.format_exception(error.__cause__))[-3000:]}"
                if error.__cause__
                else str(error)
            )
        finally:
            if hasattr(signal, "SIGALRM"):
                signal.alarm(0)
            os.chdir(former_folder)
        outside = sorted(path.name for path in outer.iterdir() if path.name != "inside")
        if outside:
            found = f"{found or ''} files outside the folder: {outside}"
        if found and keep is not None:
            shutil.copytree(inner, keep, dirs_exist_ok=True, symlinks=True)
            (keep / "finding.txt").write_text(
                f"target {target}, seed {seed}\n{found}\n", encoding="utf-8", errors="replace"
            )
    return found


def kind_of(sentence: str) -> str:
    """Return the kind of a finding: the exception, and the last line of ours that it came from."""
    ours = re.findall(r'File "[^"]*/src/selfsr/([^"]*)", line \d+, in (\w+)', sentence)
    name = re.search(r"(\w+(?:Error|Exception|Interrupt)\b)", sentence)
    return f"{name.group(1) if name else sentence[:60]} in {' '.join(ours[-1]) if ours else 'no file of ours'}"


def main() -> int:
    """Fuzz until the time is over; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; repeatable")
    parser.add_argument("--seed", type=int, default=0, help="number of the first try")
    options = parser.parse_args()
    torch.set_num_threads(1)
    targets = options.target or list(TARGETS)
    end = time.monotonic() + 60 * options.minutes
    tries, found = dict.fromkeys(targets, 0), {}
    number = options.seed
    while time.monotonic() < end:
        for target in targets:
            tries[target] += 1
            sentence = run_try(target, number, FINDINGS / f"{target}-{number}")
            if sentence:
                kind = f"{target}: {kind_of(sentence)}"
                if kind not in found:
                    print(f"{target} {number}: {sentence.splitlines()[0][:200]}\n    {kind}", flush=True)
                found.setdefault(kind, []).append(number)
        number += 1
    print("Tries: " + ", ".join(f"{target} {count:,}" for target, count in tries.items()))
    print(f"Findings: {sum(map(len, found.values()))}, of {len(found)} kinds.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
