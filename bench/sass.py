"""What Triton's compiler makes of the hot kernels of the self-similarity loss, for the published sizes; needs no GPU.

    python bench/sass.py [--capability 80 90]

Registers and stack (spills) of a thread, shared memory of a program, and machine instructions: of the whole kernel,
of its inner loop, and of the loop for each element: a window sum of one displacement at one place. The loops of
`distance` and `spread` are unrolled over a block of rows, each with four columns to a lane; that of `collect` is over
displacements, with four columns to a lane. Static facts: they say nothing about time.
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

# What each pointer of the kernels points to; other arguments are int32, or float32 if they are half a number.
POINTERS = {
    **dict.fromkeys(("planes", "energy", "q", "padded", "sums", "grad", "spread", "grad_q", "q_sr", "q_hr"), "*fp32"),
    **dict.fromkeys(("slots", "touched"), "*i32"),
    **dict.fromkeys(("image_of", "row_of", "column_of"), "*i64"),
    "parts": "*fp64",
}
SIZES = {"H": 12, "F": 4, "C": 3, "PITCH": 2048, "LEFT": 16, "TOP": 12, "ROWS": 8, "LANES": 32, "VALID": 120}
NEAR, FAR = {"FAR_Y": False, "FAR_X": False}, {"FAR_Y": True, "FAR_X": True}
ROW_PASS = {"ENTRIES": 625, "NORMALIZE": True, "WITH_GRADIENT": True, "SIZE": 64, "BLOCK": 8, "WIDE": False}


class Hot(NamedTuple):
    """A kernel as it is launched, and how many elements a lane has in a turn of its inner loop.

    Attributes:
        name: as shown.
        kernel: the kernel.
        constants: its compile-time constants beside `SIZES`.
        registers: the most that its threads may take, so that enough of them share a multiprocessor.
        elements: of a lane in a turn of the inner loop; 0 if there is no loop.
    """

    name: str
    kernel: Any
    constants: dict[str, Any]
    registers: int
    elements: int


HOT = [
    Hot("distance, near", triton_distance.distance_kernel, NEAR, 96, 9 * 4),
    Hot("distance, far", triton_distance.distance_kernel, FAR, 96, 8 * 4),
    Hot("spread, near", triton_gradient.spread_kernel, NEAR, 80, 9 * 4),
    Hot("spread, far", triton_gradient.spread_kernel, FAR, 80, 8 * 4),
    Hot("collect, near", triton_gradient.collect_kernel, {**NEAR, "WIDTH": 128}, 80, 4),
    Hot("row pass", triton_rows.row_kernel, ROW_PASS, 128, 0),
]


class Resources(NamedTuple):
    """What a compiled kernel takes; see the module's text. `loop` is 0 where there is none."""

    registers: int
    stack_bytes: int
    shared_bytes: int
    instructions: int
    loop: int


def compiled(hot: Hot, capability: int) -> Resources:
    """Compile a kernel for the given compute capability and read what it takes."""
    signature = {}
    for name, parameter in inspect.signature(hot.kernel.fn).parameters.items():
        if parameter.annotation is not parameter.empty:
            signature[name] = "constexpr"
        else:
            signature[name] = POINTERS.get(name, "fp32" if name.endswith(("_high", "_low")) else "i32")
    constants = {name: value for name, value in {**SIZES, **hot.constants}.items() if name in signature}
    source = ASTSource(hot.kernel, signature, constants)
    options = {"num_warps": 8, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        told = _cuobjdump("--dump-resource-usage", file.name)
        code = _cuobjdump("--dump-sass", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", told)
    assert found is not None, told
    return Resources(*map(int, found.groups()), *_count(code))


def has_tools() -> bool:
    """Return whether this build of Triton can read machine code."""
    return _tool().exists()


def _tool() -> Path:
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def _cuobjdump(*arguments: str) -> str:
    return subprocess.run([_tool(), *arguments], capture_output=True, text=True, check=True).stdout


def _count(code: str) -> tuple[int, int]:
    """Count instructions of the whole kernel and of its longest loop, from one branch back to where it goes.

    The assembler ends with a branch to itself and fills up with NOP, which are not counted.
    """
    places: list[int] = []
    loops: list[tuple[int, int]] = []
    for address, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code):
        place, instruction = int(address, 16), text.strip()
        if instruction.startswith("NOP"):
            continue
        target = re.search(r"\bBRA(?:\.\S+)? .*?0x([0-9a-f]+)", instruction)
        if target and int(target[1], 16) == place:
            continue
        places.append(place)
        if target and int(target[1], 16) < place:
            loops.append((int(target[1], 16), place))
    longest = max((sum(first <= place <= last for place in places) for first, last in loops), default=0)
    return len(places), longest


def main() -> None:
    """Compile the hot kernels and print what they take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90], help="compute capabilities")
    options = parser.parse_args()
    if not has_tools():
        raise SystemExit("bench/sass.py: this build of Triton has no cuobjdump to read machine code with")
    print("| kernel | GPU | registers | stack | shared | instructions | in the loop | for an element |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for hot in HOT:
        for capability in options.capability:
            used = compiled(hot, capability)
            element = f"{used.loop / hot.elements:.1f}" if hot.elements else ""
            print(
                f"| {hot.name} | sm_{capability} | {used.registers} | {used.stack_bytes} | {used.shared_bytes} "
                f"| {used.instructions} | {used.loop or ''} | {element} |"
            )


if __name__ == "__main__":
    main()
