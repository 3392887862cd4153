"""Write a network as ONNX and run it by onnxruntime, with sizes that vary where the network allows it."""

import contextlib
import copy
import io
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfsr.errors import InputError, shorten
from selfsr.machine.isolated import CrashError, run_isolated
from selfsr.models.comparison import (
    HALF_LIMIT_DB,
    Difference,
    check_difference,
    choose_sizes,
    make_check_image,
    measure_difference,
)
from selfsr.nets.spandrel.adapted import compute_every_expert
from selfsr.nets.weights.model import Model

# What PyTorch's exporter can write.
OPSETS: tuple[int, int] = (13, 20)
_PACKAGE = Path(__file__).parents[1]
# Rounding changes an output in float32 by less than this. A file that mixes the images of a batch, as DAT's masks do in
# ONNX, changes it by more, but by less than what the files of a network may differ by.
_BATCH_LIMIT_LEVELS = 0.01
# The side of the input where the sizes cannot vary, in pixels.
_FIXED_PX = 64


@dataclass(frozen=True)
class OnnxFile:
    """A network as ONNX, checked against the network.

    Attributes:
        content: the file.
        difference: from the float32 network.
        fixed_px: height and width of the only input that the file accepts; None if they may vary.
        reason: why they are fixed; empty if they may vary or were chosen.
        multiple_of_px: sides of the input must be multiples of this.
        single: the file accepts one image at a time; the network computes each by itself.
    """

    content: bytes
    difference: Difference
    fixed_px: tuple[int, int] | None
    reason: str
    multiple_of_px: int
    single: bool


def check_onnx(model: Model, opset: int) -> None:
    """Check that a model can be written as ONNX at all, before any work.

    Raises:
        InputError: onnx or onnxruntime is missing, the opset is unknown, or the network draws noise.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            "export: --onnx needs onnx and onnxruntime, got an environment without them; install them with "
            'pip install "selfsr[export]".'
        ) from error
    low, high = OPSETS
    if not low <= opset <= high:
        raise InputError(f"--opset: expected {low} to {high}, got {opset}; 17 is read by most programs.")
    if model.is_sampled:
        raise InputError(
            f"export: --onnx expected a network that computes its output in one pass, got {model.architecture}, which "
            "draws noise and runs a network several times; leave --onnx out."
        )
    if getattr(model.net, "draws_noise", False):
        raise InputError(
            f"export: --onnx expected a network whose output depends on its input only, got {model.architecture}, "
            "which draws noise; leave --onnx out."
        )


def make_onnx(model: Model, *, opset: int, half: bool, fixed_px: int | None = None) -> OnnxFile:
    """Return a network as ONNX after comparing it with the network on several sizes.

    The input is `[n, channels, h, w]` named "input", the output `[n, channels, scale h, scale w]` named "output", both
    RGB in [0, 1]. Batch and sizes vary; if the network computes with those it was traced with, they are fixed.

    Args:
        model: the model, in float32 on the CPU.
        opset: version of ONNX's operators, within `OPSETS`.
        half: write numbers, input and output in float16.
        fixed_px: side of the only input size of the file; None lets the sizes vary where possible.

    Raises:
        InputError: an operator of the network cannot be written, or the file differs from the network.
    """
    fixed_reason = ""
    if fixed_px is None:
        try:
            return _make(model, opset, half, None, "")
        except (InputError, _OnnxFailure) as error:
            fixed_reason = str(error) if isinstance(error, _OnnxFailure) else "its outputs differ at other sizes"
    side = -(-max(fixed_px or _FIXED_PX, model.minimum_px) // model.multiple_of_px) * model.multiple_of_px
    try:
        return _make(model, opset, half, side, fixed_reason)
    except _OnnxFailure as error:
        option = "--onnx-half" if half else "--onnx"
        raise InputError(
            f"export: {option} expected a network whose parts ONNX has, got {model.architecture}: {error}; leave "
            f"{option} out."
        ) from error


class _OnnxFailure(Exception):
    """The network cannot be written or the file cannot be run; the message names the part."""


def _make(model: Model, opset: int, half: bool, side_px: int | None, reason: str) -> OnnxFile:
    sizes = choose_sizes(model, varied=True) if side_px is None else ((side_px, side_px),)
    single = False
    content = _trace(model, opset, half, sizes[0], varies=side_px is None, single=False)
    if not _runs_batches(_open(content, half), model, sizes[0], half):
        single = True
        content = _trace(model, opset, half, sizes[0], varies=side_px is None, single=True)
    difference = measure_difference(_open(content, half), model.net, model.channels, sizes)
    limit = "float16" if half else "float32"
    check_difference(f"the ONNX file in {limit}", difference, half=half)
    fixed = None if side_px is None else (side_px, side_px)
    return OnnxFile(content, difference, fixed, reason, model.multiple_of_px, single)


@torch.no_grad()
def _runs_batches(run: Callable[[Tensor], Tensor], model: Model, size: tuple[int, int], half: bool) -> bool:
    """Return whether a file computes two images at once as the network computes each."""
    image = make_check_image(model.channels, *size)
    expected = torch.cat([model.net(image.clone()), model.net(image.flip(-1))]).clamp(0, 1)
    try:
        output = run(torch.cat([image, image.flip(-1)])).float().clamp(0, 1)
    except _OnnxFailure:
        return False
    if output.shape != expected.shape:
        return False
    error = output - expected
    limit = 10 ** (-HALF_LIMIT_DB / 20)
    return bool(error.square().mean().sqrt() <= limit if half else 255 * error.abs().max() <= _BATCH_LIMIT_LEVELS)


class _InOnePrecision(nn.Module):
    """Return the output in the precision of the input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: nn.Module = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).to(image.dtype)


def _trace(model: Model, opset: int, half: bool, size: tuple[int, int], *, varies: bool, single: bool) -> bytes:
    net = _InOnePrecision(compute_every_expert(copy.deepcopy(model.net).cpu().eval()))
    image = make_check_image(model.channels, *size)
    if half:
        net, image = net.half(), image.half()
    batch = {} if single else {0: "n"}
    axes = {**batch, 2: "h", 3: "w"} if varies else batch
    outputs = {**batch, 2: "scaled_h", 3: "scaled_w"} if varies else batch

    def export() -> bytes | str:
        buffer = io.BytesIO()
        try:
            # The newer exporter crashes the process for SPAN, and onnxruntime runs the files of this one alike.
            torch.onnx.export(
                net,
                (image,),
                buffer,  # pyright: ignore[reportArgumentType] - the exporter that is named below takes it
                opset_version=opset,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": axes, "output": outputs},
                training=torch.onnx.TrainingMode.PRESERVE,  # of modules, see compute_every_expert
                dynamo=False,
            )
        except Exception as error:  # the exporter has many kinds
            return _name_part(error)
        return buffer.getvalue()

    try:
        with _quiet(), torch.no_grad():
            result = run_isolated(export)
    except CrashError as error:
        raise _OnnxFailure(f"PyTorch's exporter crashed ({error})") from error
    if isinstance(result, str):
        raise _OnnxFailure(result)
    return result


def _open(content: bytes, half: bool) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise _OnnxFailure(_name_part(error)) from error

    def run(image: Tensor) -> Tensor:
        values: Any = (image.half() if half else image).numpy()
        try:
            (output,) = session.run(None, {"input": values})
        except Exception as error:
            raise _OnnxFailure(_name_part(error)) from error
        return torch.from_numpy(output)

    return run


def _name_part(error: Exception) -> str:
    """Return which part of a network cannot be written or run, from the message of an exporter or of onnxruntime."""
    text = str(error)
    if unsupported := re.search(r"ONNX export of operator ([\w ]+), (.+?)[. ]+Please", text):
        file = re.search(r"(\w+\.py):\d+", text)
        place = f" in {file[1]}" if file else ""
        return f"its {unsupported[1]}{place} cannot be written, {unsupported[2]}"
    if operator := re.search(r"operator '([\w:.]+)'", text) or re.search(r"\b(aten::\w+)", text):
        return f"its operator {operator[1]} is not in this version of ONNX"
    if node := re.search(r"running (\w+) node\. Name:'([^']*)'", text):
        layer = ".".join(part for part in node[2].split("/")[1:-1] if part and part != "net")
        return f"its {node[1]} in {layer or 'the network'} keeps the size with which it was written"
    first = text.strip().partition("\n")[0] or type(error).__name__
    first = shorten(first.rstrip("."), 160)
    if (frame := _find_frame(error)) is None:
        return first
    part = f"its {frame.name} in {_shorten_place(Path(frame.filename))}"
    if re.search(r"Half|float16", first):
        return f"{part} mixes float32 and float16"
    if isinstance(error, TypeError) and "Tensor" in first:
        return f"{part} computes with the size of the input outside of the graph"
    return f"{part} cannot be written ({first})"


def _find_frame(error: Exception) -> traceback.FrameSummary | None:
    """Return the innermost function of a network in a traceback."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _shorten_place(Path(frame.filename)) is not None and Path(frame.filename) != Path(__file__)
    ]
    return frames[-1] if frames else None


def _shorten_place(path: Path) -> str | None:
    """Return the path of a network's code below the package that it is of; None if it is of another package."""
    if path.is_relative_to(_PACKAGE):
        return path.relative_to(_PACKAGE).as_posix()
    parts = path.parts
    if "spandrel" not in parts and "spandrel_extra_arches" not in parts:
        return None
    return f"spandrel's {path.name}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings; `make_onnx` measures the effects that they are about."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
