"""The Triton kernels compiled without a GPU, for the published sizes: registers, spills, instructions."""

import os

import pytest

pytest.importorskip("triton", reason="Triton comes with torch on Linux, and is not installed here")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels cannot be compiled", allow_module_level=True)

import sass

# Instructions in the inner loop for an element: about a tenth more than docs/selfsim.md states.
MOST = {
    "distance, near": 28,
    "distance, far": 56,
    "spread, near": 24,
    "spread, far": 38,
    "collect, near": 31,
}


def _named() -> list:
    """Every kernel for both GPUs; the unrolled far classes, which take Triton longest, by default for one only."""
    return [
        pytest.param(
            hot,
            capability,
            id=f"{hot.name}-sm_{capability}",
            marks=[pytest.mark.slow] if "far" in hot.name and capability == 80 else [],
        )
        for hot in sass.HOT
        for capability in (80, 90)
    ]


@pytest.mark.parametrize(("hot", "capability"), _named())
def test_hot_kernels_spill_nothing(hot: sass.Hot, capability: int) -> None:
    if not sass.has_tools():
        pytest.skip("this build of Triton has no cuobjdump to read machine code with")
    used = sass.compiled(hot, capability)
    assert used.stack_bytes == 0
    assert 32 < used.registers <= hot.registers
    if hot.elements:
        # Each element costs at least its differences and squares.
        assert 6 < used.loop / hot.elements <= MOST[hot.name]
    if hot.name.startswith("distance"):
        # Sums along a row go from lane to lane; a detour through shared memory would mean that a layout was lost.
        assert used.shared_bytes == 0


def test_loops_are_counted_by_hand() -> None:
    """Two loops, the longer of four instructions; the branch to itself and what fills up do not count."""
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
    assert sass._count(code) == (8, 4)
