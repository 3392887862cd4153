"""`selfsr bench`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

selfsr bench

selfsr bench --size 192 --batch 4 --no-baseline --json results.json

selfsr bench --sweep --plot cost.svg

selfsr bench --device cuda --backend triton --backend eager

[bold]Method[/bold]

Value and gradient of the self-similarity loss in float32 on crops of a photo, every backend and the published
formulation (unfold) in turns in one process: medians, and medians of the ratio within a turn. Errors are against
float64. A backend whose numbers are wrong is not timed. Peak memory is what one call adds: resident memory in a
process of its own on a CPU, the allocator's statistics on a GPU."""


def bench(
    size: Annotated[int, typer.Option(min=32, help="Side of the square crops in pixels.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a batch.")] = 1,
    stride: Annotated[
        list[int] | None, typer.Option(min=1, help="Stride of the edge mask, may be given often; 3 and 1 if not given.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Photo to measure on; one that comes with scikit-image, if not given.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Backend to measure, may be given often; all that run here, if not given.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option(help="Compare with the published unfold formulation: slow, and gigabytes of memory.")
    ] = True,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, too.")] = True,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also measure along pixels, mask density, batch and search size.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0, help="How long to repeat each workload, three turns at least.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    json: Annotated[Path | None, typer.Option(help="Write all results to this JSON file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the sweep as this SVG file.")] = None,
) -> None:
    """Measure time, memory and error of the self-similarity loss on this machine."""
    from selfsr.bench.measure import BASELINE, implementations
    from selfsr.bench.run import run_bench
    from selfsr.bench.workload import Workload
    from selfsr.machine.device import choose_device

    where = choose_device(device)
    names = list(backend) if backend else implementations(where)[:-1]
    photo = None if image is None else str(image)
    run_bench(
        [Workload(size_px=size, batch=batch, stride=n, image=photo) for n in stride or (3, 1)],
        sweep=sweep,
        names=[*names, BASELINE] if baseline and BASELINE not in names else names,
        device=where,
        seconds=seconds,
        with_memory=memory,
        out=json,
        plot=plot,
    )
