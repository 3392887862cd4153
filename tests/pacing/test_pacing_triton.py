"""The Triton backend without a GPU: interpreted on tiny images, and compiled ahead of time for two GPUs."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux, and is not installed here")

pytestmark = pytest.mark.triton

HERE = Path(__file__).parent
# Cases and results of interpret_pacing.py.
CASES = [
    "tiles in both directions", "planes", "channels-last", "layouts differ",
    "reflected", "reflected line", "replicated", "bfloat16",
]  # fmt: skip
# Largest errors of float32 and bfloat16 results; docs/numerics.md.
LIMITS = {"value": 3e-6, "gradient": 4e-6, "map": 1e-6, "weight": 4e-6, "each": 1e-6}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "interpret_pacing.py", tmp_path_factory.mktemp("far")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)
    return json.loads(done.stdout)


def test_interpreted_cases_are_complete(interpreted: dict) -> None:
    assert set(interpreted) == {*CASES, "outputs", "normalized", "far apart"}


@pytest.mark.parametrize("case", CASES)
def test_interpreted_loss_equals_the_definition(interpreted: dict, case: str) -> None:
    errors = interpreted[case]
    # The gradient of a bfloat16 image is itself bfloat16.
    gradient_limit = 5e-3 if case == "bfloat16" else LIMITS["gradient"]
    assert errors["value"] <= LIMITS["value"]
    assert errors["gradient"] <= gradient_limit
    assert errors["same layout"]


@pytest.mark.parametrize("output", ["map", "weight", "each"])
def test_interpreted_output_equals_the_definition(interpreted: dict, output: str) -> None:
    assert interpreted["outputs"][output] <= LIMITS[output]


def test_interpreted_normalized_loss_equals_the_definition(interpreted: dict) -> None:
    assert interpreted["normalized"]["value"] <= LIMITS["value"]
    assert interpreted["normalized"]["gradient"] <= LIMITS["gradient"]


def test_interpreted_map_keeps_nan_in_its_window(interpreted: dict) -> None:
    assert interpreted["outputs"]["nan"]


def test_interpreted_images_may_be_more_than_2_to_the_31_elements_apart(interpreted: dict) -> None:
    assert interpreted["far apart"] == {"map": 0}


@pytest.mark.parametrize("case", ["layouts differ", "reflected"])
def test_interpreted_loss_is_exact_in_float64(interpreted: dict, case: str) -> None:
    assert interpreted[case]["value"] < 1e-12
    assert interpreted[case]["gradient"] < 1e-12


# Registers of a thread with which four programs of 128 threads share the 65,536 of a multiprocessor.
REGISTER_LIMIT = 128
# Constants that differ from those of L1 on planar float32 images, by name.
VARIANTS = {
    "L1": {},
    "channels-last": {"GROUP": 3, "X_SW": 3, "Y_SW": 3},
    "reflected, Charbonnier": {"PADDING": 1, "LOSS": 2},
    "map only": {"STORED": 1, "WITH_GRADIENT": False, "WITH_SUM": False},
    "bfloat16": {"image": "bf16"},
}


def compile_ahead(capability: int, changes: dict):
    """Compile the kernel for an absent GPU with the constants of its launch."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from selfsr.losses.structural import gaussian_taps
    from selfsr.pacing import triton as kernels

    changes = dict(changes)
    image = changes.pop("image", "fp32")
    constants = {
        "TAPS": gaussian_taps(),
        "C1": 1e-4,
        "C2": 9e-4,
        "PEAK": 2.0,
        "EPS2": 1e-6,
        "PADDING": 0,
        "LOSS": 0,
        "STORED": 0,
    }
    constants |= {"WITH_GRADIENT": True, "WITH_SUM": True, "X_SW": 1, "Y_SW": 1, "GROUP": 1}
    constants |= {"DTYPE": triton.language.float32, "ROWS": kernels.ROWS, "BLOCK": kernels.BLOCK, **changes}
    wide = "fp64" if image == "fp64" else "fp32"
    pointers = {"x": image, "y": wide, "gradient": image, "out": wide, "sigma": wide, "sums": "fp64"}
    signature = {
        name: "constexpr" if name in constants else f"*{pointers[name]}" if name in pointers else "i32"
        for name in kernels.pacing_kernel.arg_names
    }
    source = ASTSource(fn=kernels.pacing_kernel, signature=signature, constexprs=constants)
    options = {"num_warps": kernels.WARPS, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def read_resources(cubin: bytes) -> dict[str, int]:
    """Return registers, stack and memory of the machine code, read by the assembler's own tool."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this build of Triton has no cuobjdump to read machine code with")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {key: int(number) for key, number in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", text)}


@pytest.mark.parametrize(
    ("capability", "name"), [(80, "L1"), (80, "channels-last"), *((90, name) for name in VARIANTS)]
)
def test_compiled_kernel_neither_spills_nor_grows(capability: int, name: str) -> None:
    kernel = compile_ahead(capability, VARIANTS[name])
    used = read_resources(kernel.asm["cubin"])
    assert used["STACK"] == 0, "spills"
    assert used["LOCAL"] == 0, "spills"
    assert 64 < used["REG"] <= REGISTER_LIMIT
    assert used["SHARED"] <= 1024
    assert "atom" not in kernel.asm["ptx"]


def test_compiled_float64_kernel_does_not_spill() -> None:
    kernel = compile_ahead(90, {"image": "fp64", "DTYPE": triton.language.float64})
    used = read_resources(kernel.asm["cubin"])
    assert used["STACK"] == used["LOCAL"] == 0


def test_compiled_loop_carries_the_complete_ring() -> None:
    """Triton treats names that a loop only shifts as constants, unless each starts from a value of its own.

    The interpreter runs Python and cannot show that. The compiled loop must carry ten rows of four moments and the sum.
    (The oldest row is overwritten before it is read.)
    """
    loop = next(line for line in compile_ahead(90, {}).asm["ttir"].splitlines() if "scf.for" in line)
    carried = re.search(r"iter_args\((.*?)\) ->", loop)
    assert carried is not None
    assert len(carried[1].split(",")) == 4 * 10 + 1
