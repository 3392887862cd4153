"""`selfsr doctor`."""

import shutil
from typing import Annotated

import typer

from selfsr.cli.options import refuse_unused

EPILOG = """[bold]Examples[/bold]

selfsr doctor      (put its output into every bug report)

selfsr doctor --rendezvous node0:29500      (on each machine of a run over several, before torchrun)"""


def doctor(
    context: typer.Context,
    rendezvous: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Check only whether this machine reaches the place where torchrun waits for all machines, its "
            "--rdzv-endpoint.",
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, help="With --rendezvous, the limit for an answer, in seconds.")
    ] = 10.0,
) -> None:
    """Print versions, devices and backends, and the reason if one is unavailable."""
    if rendezvous is None:
        refuse_unused(context, "timeout_s", reason="without --rendezvous")
        _print_machine()
        return
    from selfsr.machine.rendezvous import check_rendezvous, parse_endpoint

    typer.echo(check_rendezvous(parse_endpoint(rendezvous), timeout_s))


def _print_machine() -> None:
    """Print versions, devices and backends."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from selfsr._ops import backends
    from selfsr.machine.environment import describe_devices, list_versions, suggest_install

    console = Console(highlight=False)
    table = Table("package", "version", box=None, show_header=False)
    for package, version in list_versions().items():
        table.add_row(package, version or f"not installed: {suggest_install(package)}")
    console.print(table, markup=False)

    console.rule("devices")
    for device, description in describe_devices().items():
        typer.echo(f"{device}: {description}")
    if not torch.cuda.is_available():
        reason = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        typer.echo(f"cuda: unavailable, {reason}")

    console.rule("programs")
    typer.echo(f"ffmpeg: {shutil.which('ffmpeg') or 'not installed; selfsr upscale needs it for videos'}")

    console.rule("backends of the operators")
    reasons = {
        "eager": None,
        "cpu": backends.why_not_cpu(torch.zeros(1)),
        "triton": _why_not_triton(),
    }
    for backend, reason in reasons.items():
        typer.echo(f"{backend}: {'available' if reason is None else 'unavailable, ' + reason}")


def _why_not_triton() -> str | None:
    """Return why no device of this machine runs the Triton backend, or None if one does."""
    import torch

    from selfsr._ops.backends import why_not_triton

    if torch.cuda.is_available():
        return why_not_triton(torch.zeros(1, device="cuda"))
    if (reason := why_not_triton()) is not None:
        return reason
    return why_not_triton(torch.zeros(1)) and "no GPU here that Triton supports"
