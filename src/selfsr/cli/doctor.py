"""`selfsr doctor`: what is installed and what runs here, and why something does not."""

EPILOG = """[bold]Example[/bold]

selfsr doctor      (put its output into every bug report)"""


def doctor() -> None:
    """Tell versions, devices and backends, and why one is not available."""
    import platform

    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("what", "here", box=None, show_header=False)
    table.add_row("Python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for package, version in _versions().items():
        table.add_row(package, version)
    console.print(table)
    console.rule("devices")
    _devices(console)
    console.rule("backends of the operators")
    _backends(console)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package, extra in {
        "selfsr": "", "torch": "", "triton": "", "numba": "train", "accelerate": "train", "spandrel": "train",
        "torchvision": "train", "torchmetrics": "metrics", "tensorboard": "track", "scikit-image": "demo",
    }.items():  # fmt: skip
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = f'not installed: pip install "selfsr[{extra}]"' if extra else "not installed"
    return found


def _devices(console) -> None:
    import os

    import torch

    from selfsr.device import choose_precision, why_not_bfloat16

    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
    for device in devices:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
        reason = why_not_bfloat16(device)
        precision = choose_precision("auto", device)
        why = "" if reason is None else f" ({reason})"
        console.print(f"{device}: {name if device.type != 'mps' else ''} trains in {precision}{why}", highlight=False)
    if not torch.cuda.is_available():
        built = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
        console.print(f"cuda: not available, {built}", highlight=False)


def _backends(console) -> None:
    import torch

    from selfsr import _backends

    probe = torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")
    reasons = {
        "eager": None,
        "cpu": _backends.why_not_cpu(torch.zeros(1)),
        "triton": _backends.why_not_triton(probe),
    }
    for backend, reason in reasons.items():
        console.print(f"{backend}: {'available' if reason is None else 'not available, ' + reason}", highlight=False)
