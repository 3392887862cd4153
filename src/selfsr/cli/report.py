"""`selfsr report`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

selfsr report runs/my

selfsr report runs/plain runs/self_paced -o compared.html

selfsr report runs/with_similarity --against runs/plain --open"""


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several runs are overlaid.", metavar="RUN...")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="HTML file to write; default: report.html in the run folder, or for several runs in the current "
            "folder.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="A run without the self-similarity loss, to compare self-similarity graphs with."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write an HTML page about runs: sample images, scores, curves, pixel weights and self-similarity graphs."""
    from selfsr.report import write_report

    single = len(runs) == 1 and against is None
    page = write_report(runs, out or (runs[0] / "report.html" if single else Path("report.html")), against=against)
    typer.echo(page)
    if open_page:
        typer.launch(str(page.absolute()))
