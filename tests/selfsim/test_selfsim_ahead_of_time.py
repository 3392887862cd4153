"""The Triton kernels compiled without a GPU, for the published sizes: registers, spills, instructions."""

import os

import pytest

pytest.importorskip("triton", reason="Triton comes with torch on Linux, and is not installed here")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels cannot be compiled", allow_module_level=True)

import sass

pytestmark = pytest.mark.triton

# Instructions in the inner loop for an element: about a tenth more than docs/selfsim.md states.
MOST = {
    "distance, complete": 28,
    "distance, truncated": 56,
    "spread, complete": 24,
    "spread, truncated": 38,
    "collect, complete": 31,
}


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
    used = sass.compile_kernel(hot, capability)
    assert used.stack_bytes == 0
    assert 32 < used.registers <= hot.registers
    if hot.elements:
        # Each element costs at least its differences and squares.
        assert 6 < used.loop / hot.elements <= MOST[hot.name]
    if hot.name.startswith("distance"):
        # Sums along a row go from lane to lane; a detour through shared memory would mean that a layout was lost.
        assert used.shared_bytes == 0


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
