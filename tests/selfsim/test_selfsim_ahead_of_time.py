"""The Triton kernels compiled without a GPU, for the published sizes: registers, spills and shared memory."""

import inspect
import os
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels cannot be compiled", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from selfsr.selfsim import triton_distance, triton_gradient, triton_rows  # noqa: E402

# What each pointer of the kernels points to; other arguments are int32, or float32 if they are half a number.
POINTERS = {
    **dict.fromkeys(("planes", "energy", "q", "padded", "sums", "grad", "spread", "grad_q", "q_sr", "q_hr"), "*fp32"),
    **dict.fromkeys(("slots", "touched"), "*i32"),
    **dict.fromkeys(("image_of", "row_of", "column_of"), "*i64"),
    "parts": "*fp64",
}
SIZES = {"H": 12, "F": 4, "C": 3, "PITCH": 2048, "LEFT": 16, "TOP": 12, "ROWS": 8, "LANES": 32, "VALID": 120}
ROW_PASS = {"ENTRIES": 625, "NORMALIZE": True, "WITH_GRADIENT": True, "SIZE": 64, "BLOCK": 8, "WIDE": False}
NEAR, FAR = {"FAR_Y": False, "FAR_X": False}, {"FAR_Y": True, "FAR_X": True}


class Resources(NamedTuple):
    registers: int
    stack_bytes: int
    shared_bytes: int


def _compile(kernel: Any, constants: dict[str, Any], capability: int, folder: Path) -> Resources:
    signature = {}
    for name, parameter in inspect.signature(kernel.fn).parameters.items():
        if parameter.annotation is not parameter.empty:
            signature[name] = "constexpr"
        else:
            signature[name] = POINTERS.get(name, "fp32" if name.endswith(("_high", "_low")) else "i32")
    constants = {name: value for name, value in {**SIZES, **constants}.items() if name in signature}
    source = ASTSource(kernel, signature, constants)
    options = {"num_warps": 8, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    told = subprocess.run([tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", told)
    assert found is not None, told
    return Resources(*map(int, found.groups()))


HOT = [
    (triton_distance.distance_kernel, NEAR, 96),
    (triton_distance.distance_kernel, FAR, 96),
    (triton_gradient.spread_kernel, NEAR, 80),
    (triton_gradient.spread_kernel, FAR, 80),
    (triton_gradient.collect_kernel, {**NEAR, "WIDTH": 128}, 80),
    (triton_rows.row_kernel, ROW_PASS, 128),
]


def _named() -> list[Any]:
    """Every kernel for both GPUs; the unrolled far classes, which take Triton longest, by default for one only."""
    return [
        pytest.param(
            *hot,
            capability,
            id=f"{hot[0].__name__}-{'far' if hot[1].get('FAR_Y') else 'near'}-sm_{capability}",
            marks=[pytest.mark.slow] if hot[1].get("FAR_Y") and capability == 80 else [],
        )
        for hot in HOT
        for capability in (80, 90)
    ]


@pytest.mark.parametrize(("kernel", "constants", "registers", "capability"), _named())
def test_hot_kernels_spill_nothing(
    kernel: Any, constants: dict[str, Any], registers: int, capability: int, tmp_path: Path
) -> None:
    used = _compile(kernel, constants, capability, tmp_path)
    assert used.stack_bytes == 0
    assert used.registers <= registers
    if kernel is triton_distance.distance_kernel:
        # Sums along a row go from lane to lane; a detour through shared memory would mean that a layout was lost.
        assert used.shared_bytes == 0
