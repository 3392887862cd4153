"""`selfsr doctor`: what is installed and what runs here, and why something does not."""

EPILOG = """[bold]Example[/bold]

selfsr doctor      (put its output into every bug report)"""


def doctor() -> None:
    """Tell versions, devices and backends, and why one is not available."""
    import torch
    import typer
    from rich.console import Console
    from rich.table import Table

    from selfsr._ops import backends
    from selfsr.machine.environment import devices, remedy, versions

    console = Console(highlight=False)
    table = Table("what", "here", box=None, show_header=False)
    for package, version in versions().items():
        table.add_row(package, version or f"not installed: {remedy(package)}")
    console.print(table, markup=False)

    console.rule("devices")
    for device, what in devices().items():
        typer.echo(f"{device}: {what}")
    if not torch.cuda.is_available():
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        typer.echo(f"cuda: not available, {built}")

    console.rule("backends of the operators")
    probe = torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")
    reasons = {
        "eager": None,
        "cpu": backends.why_not_cpu(torch.zeros(1)),
        "triton": backends.why_not_triton(probe),
    }
    for backend, reason in reasons.items():
        typer.echo(f"{backend}: {'available' if reason is None else 'not available, ' + reason}")
