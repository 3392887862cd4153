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

The benchmark computes value and gradient of the self-similarity loss in float32 on crops of a photo. Every backend and
the published formulation (unfold) take turns in one process. Results are medians, and medians of the ratio within a
turn. Errors are relative to float64. A backend with wrong results is not timed. Peak memory is the memory that one call
adds: on a CPU the resident memory of a separate process, on a GPU the statistics of the allocator."""


def bench(
    size: Annotated[int, typer.Option(min=32, help="Side of the square crops in pixels.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Batch size, in crops.")] = 1,
    stride: Annotated[
        list[int] | None, typer.Option(min=1, help="Stride of the edge mask, repeatable; 3 and 1 by default.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Photo to measure on; one of scikit-image by default.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Backend to measure, repeatable; all available ones by default.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option(help="Also measure the published unfold formulation, which is slow and needs gigabytes.")
    ] = True,
    memory: Annotated[bool, typer.Option(help="Also measure peak memory.")] = True,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also vary image size, mask density, batch size and search size.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds to repeat each workload; it is always repeated three times or more.")
    ] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    json: Annotated[Path | None, typer.Option(help="Write all results to this JSON file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the sweep into this SVG file.")] = None,
) -> None:
    """Measure time, memory and error of the self-similarity loss on this machine."""
    from selfsr.bench.measure import BASELINE, list_implementations
    from selfsr.bench.run import run_bench
    from selfsr.bench.workload import Workload
    from selfsr.fileio import check_replaceable
    from selfsr.machine.device import choose_device

    for target, suffix, option in ((json, ".json", "--json"), (plot, ".svg", "--plot")):
        if target is not None:
            check_replaceable(target, (suffix,), f"bench: {option}")
    torch_device = choose_device(device)
    names = list(backend) if backend else list_implementations(torch_device)[:-1]
    photo = None if image is None else str(image)
    run_bench(
        [Workload(size_px=size, batch=batch, stride=n, image=photo) for n in stride or (3, 1)],
        sweep=sweep,
        names=[*names, BASELINE] if baseline and BASELINE not in names else names,
        device=torch_device,
        seconds=seconds,
        with_memory=memory,
        out=json,
        plot=plot,
    )
