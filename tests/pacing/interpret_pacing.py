"""Errors of the Triton kernel in Triton's interpreter against the definition, as JSON.

`test_pacing_triton.py` runs this script in a process with TRITON_INTERPRET=1. Tiles are small so that tiny images have
several of them. The interpreter takes some 40 ms for a row.
"""

import json
import sys
from pathlib import Path

import torch

from selfsr import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.pacing import reference
from selfsr.pacing import triton as kernels

AGE = 0.7
# name: shape, dtype, sr and hr channels-last, padding, loss
CASES = {
    "tiles in both directions": ((1, 1, 9, 17), torch.float32, False, False, "zero", "l1"),
    "planes": ((2, 2, 1, 3), torch.float32, False, False, "zero", "l2"),
    "channels-last": ((2, 3, 2, 6), torch.float32, True, True, "zero", "charbonnier"),
    "layouts differ": ((1, 3, 2, 6), torch.float64, True, False, "zero", "l1"),
    "reflected": ((1, 1, 3, 11), torch.float64, False, False, "reflect", "l2"),
    "reflected line": ((1, 1, 1, 9), torch.float32, False, False, "reflect", "l1"),
    "replicated": ((1, 3, 3, 2), torch.float32, True, True, "replicate", "charbonnier"),
    "bfloat16": ((1, 1, 2, 9), torch.bfloat16, False, False, "zero", "l1"),
}


def measure_case(shape, dtype, sr_last, hr_last, padding, loss) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(shape, generator=generator, dtype=torch.float64)
    sr = (hr + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    hr = hr.float() if dtype == torch.bfloat16 else hr.to(dtype)
    s = reference.ssim(sr, hr, padding=padding)
    x = sr.double().requires_grad_()
    truth = reference.loss(x, hr.double(), reference.weight(s, AGE), loss).mean()
    (slope,) = torch.autograd.grad(truth, x)

    sr = sr.to(memory_format=torch.channels_last) if sr_last else sr
    hr = hr.to(memory_format=torch.channels_last) if hr_last else hr
    sr.requires_grad_()
    value = SelfPacedLoss(loss, padding=padding, backend="triton")(sr, hr, AGE)
    (gradient,) = torch.autograd.grad(value, sr)
    return {
        "value": abs(value.item() / truth.item() - 1),
        "gradient": ((gradient.double() - slope).square().mean() / slope.square().mean()).sqrt().item(),
        "same layout": gradient.stride() == sr.stride(),
    }


def measure_outputs() -> dict[str, float]:
    """Return the errors of map, weight and elementwise loss, and whether NaN stays in its window."""
    sr, hr = torch.rand(2, 1, 1, 2, 11, generator=torch.Generator().manual_seed(1))
    s = reference.ssim(sr, hr)
    w = reference.weight(s, AGE)
    each = SelfPacedLoss("l2", reduction="none", backend="triton")(sr, hr, AGE)
    errors = {
        "map": ssim_map(sr, hr, backend="triton") - s,
        "weight": self_paced_weight(sr, hr, AGE, backend="triton") - w,
        "each": each - reference.loss(sr, hr, w, "l2"),
    }
    sr[0, 0, 1, 0] = float("nan")
    bad = ssim_map(sr, hr, backend="triton")
    spread = bool(bad[..., :6].isnan().all() and bad[..., 6:].isfinite().all())
    return {**{name: error.abs().max().item() for name, error in errors.items()}, "nan": spread}


def measure_normalized() -> dict[str, float]:
    """Return the errors of the loss with normalized weights, at an age at which all weights underflow."""
    sr, hr = torch.rand(2, 1, 2, 3, 7, generator=torch.Generator().manual_seed(3))
    age = 0.01
    x = sr.double().requires_grad_()
    v = reference.normalized_weight(reference.ssim(sr, hr), age)
    truth = reference.normalized_loss(x, hr.double(), v, "l1").mean()
    (slope,) = torch.autograd.grad(truth, x)
    sr.requires_grad_()
    value = SelfPacedLoss("l1", normalize=True, backend="triton")(sr, hr, age)
    (gradient,) = torch.autograd.grad(value, sr)
    return {
        "value": abs(value.item() / truth.item() - 1),
        "gradient": ((gradient.double() - slope).norm() / slope.norm()).item(),
    }


def measure_far_apart(folder: Path) -> dict[str, float]:
    """Return the error of the map for images more than 2^31 elements apart, in sparse files."""
    distance = 2**31 + 7
    near = torch.rand(2, 2, 1, 1, 3, generator=torch.Generator().manual_seed(2))
    far = []
    for name, pair in zip(("sr", "hr"), near, strict=True):
        flat = torch.from_file(str(folder / name), shared=True, size=distance + 3, dtype=torch.float32)
        far.append(flat.as_strided((2, 1, 1, 3), (distance, 3, 3, 1)).copy_(pair))
    expected, result = (ssim_map(*images, backend="triton") for images in (near, far))
    return {"map": (result - expected).abs().max().item()}


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
    from interpreter import speed_up_interpreter

    speed_up_interpreter()
    kernels.ROWS, kernels.BLOCK = 8, 16
    results = {**{name: measure_case(*case) for name, case in CASES.items()}, "outputs": measure_outputs()}
    results["normalized"] = measure_normalized()
    results["far apart"] = measure_far_apart(Path(sys.argv[1]))
    json.dump(results, sys.stdout)
