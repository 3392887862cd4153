"""`selfsr demo`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Example[/bold]

selfsr demo --out demo"""


def demo(
    out: Annotated[Path, typer.Option(help="The folder to make: photos, runs, pictures and the report.")] = Path(
        "demo"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
) -> None:
    """Do the main job on real photos, in minutes on a CPU: train, judge, upscale, report."""
    from selfsr.demo import run_demo

    run_demo(out, device=device)
