"""The stages of bench/gpu.py, and the page docs/gpu.md, with or without their results."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A stage, with its time limit.

    Attributes:
        name: its name, also of the function in bench/gpu_stages.py.
        limit_s: seconds after which it is stopped.
        gives: what its figures are for, in the page.
    """

    name: str
    limit_s: float
    gives: str


STAGES = [
    Stage("machine", 20, "the card, its measured memory and matrix rates, versions"),
    Stage("compile", 90, "seconds to compile all kernels in threads, from an empty cache"),
    Stage("values", 90, "errors of both operators against float64, equal bits, no wait of the host, CUDA graphs"),
    Stage("operators", 75, "time of the self-similarity loss by memory budget and launch options, against its floor"),
    Stage("unhinted", 40, "the same without the hint that keeps scattered accesses in place"),
    Stage("pacing", 30, "time of self-paced weighting against five convolutions"),
    Stage("data", 15, "crops per second of the caches of decoded images, and host time for each batch"),
    Stage("steps", 130, "steps per second of EDSR and ESRGAN against the plain loop, launches, share of the loss"),
    Stage("equal_bits", 40, "whether training repeats bit for bit; error of TF32"),
    Stage("train", 60, "the command line from end to end: train, evaluate, upscale"),
    Stage("suite", 55, "the tests of the operators on the GPU"),
    Stage("counters", 30, "hardware counters of one kernel"),
]

_INTRODUCTION = """# On a GPU

`bench/gpu.py` measures the operators and training on the GPU of a machine, in stages of known length, in nine minutes.
The kernels and their limits are described in [selfsim.md](selfsim.md#on-a-gpu) and [pacing.md](pacing.md), figures of
CPUs in [benchmarks.md](benchmarks.md).

{status}

## How to run it

    python bench/gpu.py                            # on the machine with the GPU; results in gpu-results/
    python bench/gpu.py --stages machine values    # some of the stages
    python bench/gpu.py --rehearse                 # on a CPU, with tiny sizes: shows that everything runs

For a machine without network, fill a folder, copy it there, and run its script:

    python bench/gpu.py --kit kit --photos datasets/DIV2K/DIV2K_train_HR --installed installed.txt
    sh kit/run.sh                                  # there; results in kit/results/

`installed.txt` has the packages of that machine, as `pip list` prints them there, with or without versions. PyTorch
with CUDA must be among them; the kit has wheels of those that are missing or too old. It is below 60 MB.

Each stage is a process with a time limit. Results are written to `results.json` after each measurement, a stage that
fails does not stop the next, and `gpu.md` is this page with the results. `--page results.json` prints it again.

## What it measures

| stage | limit | what it gives |
| --- | --- | --- |
{stages}

The lower bound of a time ("floor") is the larger of two: the instructions that every implementation of the fast form
needs, at the peak rate by the card's clocks, and one transfer of each byte at its bandwidth (`bench/gpu_floor.py`). The
stage `unhinted` runs a copy of the sources without the hint that keeps scattered accesses in place
(`scatter` in `src/selfsr/selfsim/triton/walk.py`).

Times of an operator are medians between two CUDA events. Steps per second are counted without waiting between the
steps, with EMA, optimizers and the sums for the log. The plain loop is autocast to bfloat16, channels-last tensors,
Adam and EMA, with the loss read in each step.

## Targets

* The self-similarity loss with its gradient, 64 crops of 128 px with 20 % of the pixels masked: at most 3 times the
  floor.
* The self-similarity loss: at most 3 % of an ESRGAN step.
* Steps per second over those of the plain loop: EDSR-baseline at batch 16 at least 2 times, ESRGAN at least 1.5 times.
* Values and gradients within [numerics.md](numerics.md).
"""
_UNMEASURED = """**It has not run on a GPU yet.** What is known without one: the kernels' values from Triton's
interpreter, and their registers, spills, barriers and instructions from ahead-of-time compilation (`bench/sass.py`)."""


def render_page(report: dict[str, Any] | None) -> str:
    """Return docs/gpu.md: how to measure, and the results of a run if there are some.

    Args:
        report: contents of results.json; None for the page without results.
    """
    rows = "\n".join(f"| {stage.name} | {stage.limit_s:.0f} s | {stage.gives} |" for stage in STAGES)
    measured = report is not None and report["device"] != "cpu"
    status = f"Measured on {_name_card(report)}." if measured and report else _UNMEASURED
    page = _INTRODUCTION.format(status=status, stages=rows)
    if report is None:
        return page
    title = f"Results: {_name_card(report)}" if measured else "Results of a rehearsal on a CPU"
    lines = ["", f"## {title}", "", "    python bench/gpu.py" + ("" if measured else " --rehearse"), ""]
    if not measured:
        lines += ["Sizes are tiny and the device is a CPU: these figures say nothing about a GPU.", ""]
    for name, entry in report["stages"].items():
        lines += [f"### {name}", "", f"{entry['status']}, {entry['seconds']:.0f} s.", ""]
        table = list(_flatten(entry["results"]))
        if table:
            lines += ["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in table), ""]
    return page + "\n".join(lines)


def _name_card(report: dict[str, Any]) -> str:
    results = report["stages"].get("machine", {}).get("results", {})
    card = results.get("card")
    name = card["name"] if isinstance(card, dict) else "a GPU whose name was not read"
    versions = results.get("versions", {})
    return f"{name}, torch {versions.get('torch')}, Triton {versions.get('triton')}"


def _flatten(value: Any, path: str = "") -> "list[tuple[str, str]]":
    """Return nested results as rows of a table."""
    if isinstance(value, dict):
        rows = []
        for key, entry in value.items():
            rows += _flatten(entry, f"{path}, {key}" if path else str(key))
        return rows
    if isinstance(value, list):
        if all(not isinstance(entry, dict | list) for entry in value):
            return [(path, "; ".join(map(_print_value, value)))]
        return [row for i, entry in enumerate(value, 1) for row in _flatten(entry, f"{path} {i}")]
    return [(path, _print_value(value))]


def _print_value(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "/").split())
