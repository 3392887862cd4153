"""Registers and instructions of the compiled Triton kernels of the self-similarity loss; needs no GPU.

    python bench/sass.py [--capability 80 90] [--kernels distance spread] [--triton 3.6.0] [--json]

With --triton another version is used, from .cache/triton/VERSION; it is fetched by pip if it is not there.

Prints for the published sizes: registers and stack (spills) of a thread, shared memory of a program, and machine
instructions of the full kernel, of its inner loop, and of the loop per element, which is the window sum of one
displacement at one pixel. The loops of `distance` and `spread` are unrolled over a block of rows with four columns per
lane; the loop of `collect` is over displacements with four columns per lane. These are static numbers, not times.
"""

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from selfsr.selfsim.triton import distance as triton_distance
from selfsr.selfsim.triton import gradient as triton_gradient
from selfsr.selfsim.triton import rows as triton_rows
from selfsr.selfsim.triton.config import choose_config, triton_version

# Other versions of Triton, each unpacked in a folder of its name.
TRITONS = Path(__file__).parents[1] / ".cache" / "triton"
_REGISTERS_OF_MULTIPROCESSOR = 65536

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
        warps: fewest warps that must fit the registers of a multiprocessor, in programs that are complete.
        elements: elements per lane in one iteration of the inner loop; 0 if there is no loop.
    """

    name: str
    kernel: Any
    constants: dict[str, Any]
    warps: int
    elements: int


HOT = [
    HotKernel("distance, complete", triton_distance.distance_kernel, COMPLETE, 16, 9 * 4),
    HotKernel("distance, truncated", triton_distance.distance_kernel, TRUNCATED, 16, 8 * 4),
    HotKernel("spread, complete", triton_gradient.spread_kernel, COMPLETE, 24, 9 * 4),
    HotKernel("spread, truncated", triton_gradient.spread_kernel, TRUNCATED, 24, 8 * 4),
    HotKernel("collect, complete", triton_gradient.collect_kernel, {**COMPLETE, "WIDTH": 128}, 24, 4),
    HotKernel("row pass", triton_rows.row_kernel, ROW_PASS, 16, 0),
]


class Resources(NamedTuple):
    """Resources of a compiled kernel, see the docstring of the module; `loop` is 0 if there is no loop.

    `resident_warps` is the number of warps whose registers fit a multiprocessor, in complete programs; `barriers` and
    `stores` count instructions of the full kernel.
    """

    registers: int
    stack_bytes: int
    shared_bytes: int
    instructions: int
    loop: int
    barriers: int
    stores: int
    resident_warps: int


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
    config = choose_config(divmod(capability, 10), triton_version())
    options = {"num_warps": 8, "enable_fp_fusion": False}
    if hot.kernel is triton_rows.row_kernel:
        options["num_warps"] = config.row_warps
    if hot.kernel is triton_gradient.collect_kernel:
        options |= config.collect_options()
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _cuobjdump("--dump-resource-usage", file.name)
        code = _cuobjdump("--dump-sass", file.name)
    numbers = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", usage)
    assert numbers is not None, usage
    warps = options["num_warps"]
    # Registers are given to threads by eights.
    resident = warps * (_REGISTERS_OF_MULTIPROCESSOR // (-(-int(numbers[1]) // 8) * 8 * 32 * warps))
    return Resources(*map(int, numbers.groups()), *_count_instructions(code), *_count_accesses(code), resident)


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


def _count_accesses(code: str) -> tuple[int, int]:
    """Return the number of barriers of a program and of stores to the GPU's memory, in the entire kernel."""
    return len(re.findall(r"\bBAR\.SYNC", code)), len(re.findall(r"\bSTG\.", code))


def fetch_triton(version: str) -> Path:
    """Return the folder of another version of Triton, after fetching it with pip if it is not there.

    Raises:
        SystemExit: pip does not get it.
    """
    folder = TRITONS / version
    if not (folder / "triton").exists():
        with tempfile.TemporaryDirectory() as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels]
            if subprocess.run([*command, f"triton=={version}"]).returncode:
                raise SystemExit(f"bench/sass.py: triton {version} is not available from pip here.")
            with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
                wheel.extractall(folder)
        for tool in (folder / "triton" / "backends" / "nvidia" / "bin").iterdir():
            tool.chmod(0o755)
    return folder


def environment_of(version: str) -> dict[str, str]:
    """Return an environment in which Python imports a version of Triton that `fetch_triton` has unpacked."""
    paths = [str(TRITONS / version), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def main() -> None:
    """Compile the hot kernels and print their resources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, nargs="+", default=[80, 90], help="compute capabilities")
    parser.add_argument("--kernels", nargs="+", default=[""], help="first letters of the kernels' names; all of them")
    parser.add_argument("--triton", metavar="VERSION", help="another version of Triton, such as 3.6.0")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if options.triton is not None and options.triton != triton.__version__:
        fetch_triton(options.triton)
        raise SystemExit(subprocess.run([sys.executable, *sys.argv], env=environment_of(options.triton)).returncode)
    if not has_tools():
        raise SystemExit("bench/sass.py: needs cuobjdump, which this build of Triton does not include.")
    hot_kernels = [hot for hot in HOT if hot.name.startswith(tuple(options.kernels))]
    if options.json:
        found = [
            {"kernel": hot.name, "capability": capability, **compile_kernel(hot, capability)._asdict()}
            for hot in hot_kernels
            for capability in options.capability
        ]
        print(json.dumps({"triton": triton.__version__, "kernels": found}, indent=1))
        return
    print(f"Triton {triton.__version__}")
    print("| kernel | GPU | registers | stack | shared | instructions | in the loop | per element | barriers |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for hot in hot_kernels:
        for capability in options.capability:
            used = compile_kernel(hot, capability)
            element = f"{used.loop / hot.elements:.1f}" if hot.elements else ""
            print(
                f"| {hot.name} | sm_{capability} | {used.registers} | {used.stack_bytes} | {used.shared_bytes} "
                f"| {used.instructions} | {used.loop or ''} | {element} | {used.barriers} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
