"""`selfsr report`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

selfsr report runs/my

selfsr report runs/plain runs/self_paced -o compared.html

selfsr report runs/with_similarity --against runs/plain --open

selfsr report runs/my --follow --open          [dim]# during the training, in a second terminal[/dim]"""


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
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Rewrite the page when the run logs, evaluates or saves samples, until the run ends. The open page "
            "reloads itself. May be started before the training. Ctrl-C stops following, not the training.",
        ),
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write an HTML page about runs: sample images, scores, curves, pixel weights and self-similarity graphs."""
    from selfsr.fileio import check_replaceable
    from selfsr.report import write_report

    single = len(runs) == 1 and against is None
    page = out or (runs[0] / "report.html" if single else Path("report.html"))
    check_replaceable(page, (".html", ".htm"), "report: --out")
    if follow:
        _follow(runs, page, against, open_page=open_page)
        return
    typer.echo(write_report(runs, page, against=against))
    if open_page:
        typer.launch(str(page.absolute()))


def _follow(runs: list[Path], page: Path, against: Path | None, *, open_page: bool) -> None:
    from selfsr.report.follow import follow_runs

    def open_once() -> None:
        typer.launch(str(page.absolute()))

    try:
        follow_runs(runs, page, against=against, on_first_page=open_once if open_page else None)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
