"""`selfsr doctor`."""

EPILOG = """[bold]Example[/bold]

selfsr doctor      (put its output into every bug report)"""


def doctor() -> None:
    """Print versions, devices and backends, and the reason if one is unavailable."""
    import torch
    import typer
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
