"""The Triton kernels compiled without a GPU, for the published sizes: registers, spills, instructions."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton comes with torch on Linux, and is not installed here")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels cannot be compiled", allow_module_level=True)

import sass
from selfsr.selfsim.triton.config import triton_version

pytestmark = pytest.mark.triton

# Instructions in the inner loop for an element: about a tenth more than docs/selfsim.md states.
MOST = {
    "distance, complete": 28,
    "distance, truncated": 56,
    "spread, complete": 24,
    "spread, truncated": 38,
    "collect, complete": 36,
}
# Store instructions: in `distance` one for each row of a block, column of a lane and direction, in `spread` one with
# four values for each row. More would mean split accesses, fewer would mean scattered addresses taken as contiguous.
STORES = {"distance, complete": 72, "distance, truncated": 64, "spread, complete": 9, "spread, truncated": 8}
# Other versions are tested where `python bench/sass.py --triton VERSION` has put them; by default one kernel of each.
OTHERS = ["3.3.1", "3.4.0", "3.5.1", "3.6.0", "3.7.0"]


def check_limits(hot: sass.HotKernel, capability: int, used: sass.Resources, version: tuple[int, int]) -> None:
    """Check the machine code of a kernel against the limits that hold for every version of Triton."""
    # Triton 3.5 keeps four registers of one kernel on the stack, 8 of 1,600 instructions of its loop.
    assert used.stack_bytes == (16 if version == (3, 5) and hot.name == "distance, truncated" else 0)
    assert used.registers > 32
    # Two programs, not three, where a limit to the registers would spill (selfsim/triton/config.py).
    spills = hot.name.startswith("collect") and capability == 80 and version < (3, 8)
    assert used.resident_warps >= (16 if spills else hot.warps)
    if hot.elements:
        # Each element costs at least its differences and squares.
        assert 6 < used.loop / hot.elements <= MOST[hot.name]
    if hot.name in STORES:
        # Sums along a row go from lane to lane; a detour through shared memory would mean that a layout was lost.
        assert used.shared_bytes == 0
        assert used.barriers == 0
        assert used.stores == STORES[hot.name]


def _name_kernels() -> list:
    """Return every kernel for both GPUs, the slow ones (truncated windows) by default for one only."""
    return [
        pytest.param(
            hot,
            capability,
            id=f"{hot.name}-sm_{capability}",
            marks=[pytest.mark.slow] if "truncated" in hot.name and capability == 80 else [],
        )
        for hot in sass.HOT
        for capability in (80, 90)
    ]


@pytest.mark.parametrize(("hot", "capability"), _name_kernels())
def test_hot_kernels_neither_spill_nor_grow(hot: sass.HotKernel, capability: int) -> None:
    if not sass.has_tools():
        pytest.skip("this build of Triton has no cuobjdump to read machine code with")
    check_limits(hot, capability, sass.compile_kernel(hot, capability), triton_version())


@pytest.mark.parametrize(
    "hot",
    [
        pytest.param(hot, id=hot.name, marks=[] if hot.name == "distance, complete" else [pytest.mark.slow])
        for hot in sass.HOT
    ],
)
@pytest.mark.parametrize("version", OTHERS)
def test_hot_kernels_are_as_good_with_earlier_versions(hot: sass.HotKernel, version: str) -> None:
    if not (sass.TRITONS / version / "triton").exists():
        pytest.skip(f"needs Triton {version} in .cache/triton; run python bench/sass.py --triton {version}")
    command = [sys.executable, sass.__file__, "--json", "--kernels", hot.name, "--capability", "90"]
    output = subprocess.run(command, env=sass.environment_of(version), capture_output=True, text=True, check=True)
    result = json.loads(output.stdout)
    assert result["triton"] == version
    (entry,) = result["kernels"]
    used = sass.Resources(**{name: entry[name] for name in sass.Resources._fields})
    check_limits(hot, 90, used, tuple(map(int, version.split(".")[:2])))


def test_instruction_count_finds_the_longest_loop() -> None:
    """Two loops, the longer of four instructions; the branch to itself and the padding do not count."""
    code = """
        /*0000*/  MOV R1, c[0x0][0x28] ;
        /*0010*/  FADD R0, R0, R1 ;
        /*0020*/  @P0 BRA 0x10 ;
        /*0030*/  LDG.E R2, [R4.64] ;
        /*0040*/  FFMA R0, R2, R2, R0 ;
        /*0050*/  ISETP.NE.AND P0, PT, R6, RZ, PT ;
        /*0060*/  @P0 BRA `(.L_x_1) 0x30 ;
        /*0070*/  EXIT ;
        /*0080*/  BRA 0x80;
        /*0090*/  NOP;
    """
    assert sass._count_instructions(code) == (8, 4)


def test_access_count_finds_barriers_and_stores() -> None:
    code = """
        /*0000*/  STG.E [R2.64], R4 ;
        /*0010*/  BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0020*/  @P0 STG.E.128 [R2.64+0x10], R4 ;
        /*0030*/  STS [R2], R4 ;
    """
    assert sass._count_accesses(code) == (1, 2)
