"""Registers and instructions of the compiled Triton kernels of the self-similarity loss; needs no GPU.

    python bench/sass.py [--capability 80 90]

Prints for the published sizes: registers and stack (spills) of a thread, shared memory of a program, and machine
instructions of the full kernel, of its inner loop, and of the loop per element, which is the window sum of one
displacement at one pixel. The loops of `distance` and `spread` are unrolled over a block of rows with four columns per
lane; the loop of `collect` is over displacements with four columns per lane. These are static numbers, not times.
"""

import argparse
import inspect
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from selfsr.selfsim.triton import distance as triton_distance
from selfsr.selfsim.triton import gradient as triton_gradient
from selfsr.selfsim.triton import rows as triton_rows

# Types of the pointer arguments; other arguments are int32, or float32 for halves of a split number.
POINTERS = {
    **dict.fromkeys(("planes", "energy", "q", "padded", "sums", "grad", "spread", "grad_q", "q_sr", "q_hr"), "*fp32"),
    **dict.fromkeys(("slots", "touched"), "*i32"),
    **dict.fromkeys(("image_of", "row_of", "column_of"), "*i64"),
    "parts": "*fp64",
}
SIZES = {"H": 12, "F": 4, "C": 3, "PITCH": 2048, "LEFT": 16, "TOP": 12, "ROWS": 8, "LANES": 32, "VALID": 120}
COMPLETE = {"TRUNCATED_Y": False, "TRUNCATED_X": False}
TRUNCATED = {"TRUNCATED_Y": True, "TRUNCATED_X": True}
ROW_PASS = {"ENTRIES": 625, "NORMALIZE": True, "WITH_GRADIENT": True, "SIZE": 64, "BLOCK": 8, "WIDE": False}


class HotKernel(NamedTuple):
    """A kernel with the constants of its launch.

    Attributes:
        name: name in the table.
        kernel: the kernel.
        constants: compile-time constants in addition to `SIZES`.
        registers: largest number of registers per thread with which enough threads share a multiprocessor.
        elements: elements per lane in one iteration of the inner loop; 0 if there is no loop.
    """

    name: str
    kernel: Any
    constants: dict[str, Any]
    registers: int
    elements: int


HOT = [
    HotKernel("distance, complete", triton_distance.distance_kernel, COMPLETE, 96, 9 * 4),
    HotKernel("distance, truncated", triton_distance.distance_kernel, TRUNCATED, 96, 8 * 4),
    HotKernel("spread, complete", triton_gradient.spread_kernel, COMPLETE, 80, 9 * 4),
    HotKernel("spread, truncated", triton_gradient.spread_kernel, TRUNCATED, 80, 8 * 4),
    HotKernel("collect, complete", triton_gradient.collect_kernel, {**COMPLETE, "WIDTH": 128}, 80, 4),
    HotKernel("row pass", triton_rows.row_kernel, ROW_PASS, 128, 0),
]


class Resources(NamedTuple):
    """Resources of a compiled kernel, see the docstring of the module; `loop` is 0 if there is no loop."""

    registers: int
    stack_bytes: int
    shared_bytes: int
    instructions: int
    loop: int


def compile_kernel(hot: HotKernel, capability: int) -> Resources:
    """Compile a kernel for a compute capability and return its resources."""
    signature = {}
    for name, parameter in inspect.signature(hot.kernel.fn).parameters.items():
        if parameter.annotation is not parameter.empty:
            signature[name] = "constexpr"
        else:
            signature[name] = POINTERS.get(name, "fp32" if name.endswith(("_high", "_low")) else "i32")
    constants = {name: value for name, value in {**SIZES, **hot.constants}.items() if name in signature}
    source = ASTSource(hot.kernel, signature, constants)
    options = {"num_warps": 8, "enable_fp_fusion": False}
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _cuobjdump("--dump-resource-usage", file.name)
        code = _cuobjdump("--dump-sass", file.name)
    numbers = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    assert numbers is not None, usage
    return Resources(*map(int, numbers.groups()), *_count_instructions(code))


def has_tools() -> bool:
    """Return whether this build of Triton includes a disassembler."""
    return _cuobjdump_path().exists()


def _cuobjdump_path() -> Path:
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def _cuobjdump(*arguments: str) -> str:
    return subprocess.run([_cuobjdump_path(), *arguments], capture_output=True, text=True, check=True).stdout


def _count_instructions(code: str) -> tuple[int, int]:
    """Return the number of instructions of the kernel and of its longest loop.

    A loop lies between a branch and its target. A branch to itself and the NOPs at the end are not counted.
    """
    addresses: list[int] = []
    loops: list[tuple[int, int]] = []
    for hexadecimal, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code):
        address, instruction = int(hexadecimal, 16), text.strip()
        if instruction.startswith("NOP"):
            continue
        target = re.search(r"\bBRA(?:\.\S+)? .*?0x([0-9a-f]+)", instruction)
        if target and int(target[1], 16) == address:
            continue
        addresses.append(address)
        if target and int(target[1], 16) < address:
            loops.append((int(target[1], 16), address))
    longest = max((sum(first <= address <= last for address in addresses) for first, last in loops), default=0)
    return len(addresses), longest


def main() -> None:
    """Compile the hot kernels and print their resources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90], help="compute capabilities")
    options = parser.parse_args()
    if not has_tools():
        raise SystemExit("bench/sass.py: needs cuobjdump, which this build of Triton does not include.")
    print("| kernel | GPU | registers | stack | shared | instructions | in the loop | per element |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for hot in HOT:
        for capability in options.capability:
            used = compile_kernel(hot, capability)
            element = f"{used.loop / hot.elements:.1f}" if hot.elements else ""
            print(
                f"| {hot.name} | sm_{capability} | {used.registers} | {used.stack_bytes} | {used.shared_bytes} "
                f"| {used.instructions} | {used.loop or ''} | {element} |"
            )


if __name__ == "__main__":
    main()
