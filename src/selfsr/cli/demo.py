"""`selfsr demo`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Example[/bold]

selfsr demo --out demo"""


def demo(
    out: Annotated[Path, typer.Option(help="Output folder, for photos, runs, upscaled photos and the report.")] = Path(
        "demo"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Train, evaluate and upscale on sample photos, and compare the shipped models (minutes on a CPU)."""
    from selfsr.demo import run_demo

    run_demo(out, device=device)
