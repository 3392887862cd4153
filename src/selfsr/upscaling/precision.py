"""Choose the precision of a network for upscaling: half precision where the device has it and nobody sees it."""

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.images.resize import imresize
from selfsr.machine.arithmetic import TRUE_FLOAT32
from selfsr.machine.device import why_not_bfloat16
from selfsr.nets.spandrel.precision import keep_image_values_in_float32
from selfsr.nets.weights.model import Model
from selfsr.upscaling.network import CastNetwork
from selfsr.upscaling.options import RequestedPrecision

# The largest change of the output by bfloat16 that "auto" accepts: half a gray level, root mean square.
LARGEST_ROUNDING = 0.5
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Side of the image on which the change is measured, and of its blocks.
_PROBE_PX, _BLOCK_PX = 48, 4


def choose_half(
    requested: RequestedPrecision, model: Model, network: CastNetwork, device: torch.device
) -> torch.dtype | None:
    """Return the half precision for 8-bit images, or None for float32.

    With "auto" it is float16 where the device computes it natively and the model supports it, else bfloat16 under the
    same conditions, if it changes the output on a test image by at most `LARGEST_ROUNDING`.

    Args:
        requested: the option of the user.
        model: the model.
        network: its network, on the device. If it may run in half precision, its first and last layers are set to
            compute in float32.
        device: the device.

    Raises:
        InputError: the requested precision is not available.
    """
    if requested == "float32":
        return None
    if requested != "auto":
        reason = _why_not(requested, model, device)
        if reason is not None:
            raise InputError(
                f"upscale: expected a supported precision, got {requested}: {reason}; use --precision auto."
            )
        keep_image_values_in_float32(network.net, make_probe(model, device))
        return _DTYPES[requested]
    for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        if _why_not(name, model, device) is None:
            probe = make_probe(model, device)
            keep_image_values_in_float32(network.net, probe)
            if dtype == torch.float16 or measure_rounding(network, probe, dtype) <= LARGEST_ROUNDING:
                return dtype
    return None


def measure_rounding(network: CastNetwork, lr: Tensor, dtype: torch.dtype) -> float:
    """Return by how much a precision changes the output: the root mean square, in gray levels of 255.

    Args:
        network: the network.
        lr: input `[1, C, h, w]` in [0, 1].
        dtype: the precision to compare with float32.
    """
    before, outputs = network.dtype, []
    try:
        with torch.inference_mode(), TRUE_FLOAT32.use():
            for network.dtype in (torch.float32, dtype):
                outputs.append(network(lr).clamp(0, 1))
    except FloatingPointError:
        return float("inf")
    finally:
        network.dtype = before
    return 255 * float((outputs[1] - outputs[0]).square().mean().sqrt())


def make_probe(model: Model, device: torch.device) -> Tensor:
    """Return a test image that the network accepts, with edges, texture and flat areas, `[1, C, h, w]` in [0, 1]."""
    least_px, step_px = max(_PROBE_PX, model.minimum_px), model.multiple_of_px
    side_px = -(-least_px // step_px) * step_px
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(1, model.channels, -(-side_px // _BLOCK_PX), -(-side_px // _BLOCK_PX), generator=generator)
    smooth = imresize(blocks, scale=_BLOCK_PX)[..., :side_px, :side_px]
    texture = 0.05 * torch.randn(smooth.shape, generator=generator) * (smooth[:, :1] > 0.5)
    return (smooth + texture).clamp(0, 1).to(device)


def _why_not(precision: str, model: Model, device: torch.device) -> str | None:
    """Return why a half precision cannot be used on this device with this model, or None."""
    if precision == "bfloat16":
        reason, supported = why_not_bfloat16(device), model.supports_bfloat16
    else:
        reason, supported = why_not_float16(device), model.supports_half
    if reason is None and not supported:
        reason = f"{model.architecture} does not support it"
    return reason


def why_not_float16(device: torch.device) -> str | None:
    """Return why `device` does not compute float16 natively, or None if it does."""
    if device.type == "cpu":
        return "float16 is for GPUs, the device is the CPU"
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (7, 0):
        return "the GPU is older than compute capability 7.0"
    return None
