"""`selfsr report`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

selfsr report runs/my

selfsr report runs/plain runs/self_paced -o compared.html

selfsr report runs/with_similarity --against runs/plain --open"""


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; several are laid over one another.", metavar="RUN...")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The page to write; by default report.html in the run folder, or here for several runs."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="A run trained without the self-similarity loss, to set its graphs beside the others'."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
) -> None:
    """Draw one self-contained HTML page from run folders: scores, curves, pictures, attention, self-similarity."""
    from selfsr.report import write_report

    alone = len(runs) == 1 and against is None
    page = write_report(runs, out or (runs[0] / "report.html" if alone else Path("report.html")), against=against)
    typer.echo(page)
    if open_page:
        typer.launch(str(page.resolve()))
