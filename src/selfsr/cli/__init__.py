"""The command line: one module for each command. Commands import their modules when they run, for a fast --help."""

import errno
import io
import os
import sys

try:
    import typer
except ImportError:  # selfsr is installed with the losses only
    sys.exit('selfsr: the command line needs more packages; install them with: pip install "selfsr[train]"')

from selfsr.cli import bench, data, degrade, demo, doctor, evaluate, recipes, report, study, train, upscale
from selfsr.errors import InputError

app: typer.Typer = typer.Typer(
    name="selfsr",
    help="Train, evaluate and run image super-resolution models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(requested: bool) -> None:
    if requested:
        from selfsr import __version__

        typer.echo(f"selfsr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


app.command("train", epilog=train.EPILOG)(train.train)
app.command("evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("upscale", epilog=upscale.EPILOG)(upscale.upscale)
app.command("degrade", epilog=degrade.EPILOG)(degrade.degrade)
app.command("report", epilog=report.EPILOG)(report.report)
app.command("study", epilog=study.EPILOG)(study.study)
app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("bench", epilog=bench.EPILOG)(bench.bench)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.add_typer(data.app, name="data", help="Check and prepare training images.")
app.add_typer(recipes.app, name="recipes", help="List, show and copy the shipped recipes.")


def main() -> None:
    """Run the command line.

    The exit status is 0 after success, 1 after a crash (with a traceback), 2 after a user's mistake and 3 after a file
    error (each with one sentence on stderr), and 130 after Ctrl-C. A reader of the output that stops early, such as
    `head`, ends the command without a message.
    """
    _accept_any_file_name()
    try:
        app()
    except InputError as error:
        _print_error(str(error))
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its exit
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in _FILE_ERRORS:
            raise
        _print_error(f"{_describe_file_error(error)}; files written before are complete.")
        sys.exit(3)
    except KeyboardInterrupt:
        _print_error("stopped.")
        sys.exit(130)


_FILE_ERRORS = {
    errno.ENOSPC: "no space left on the disk for",
    errno.EDQUOT: "disk quota exceeded for",
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "no permission for",
    errno.EPERM: "no permission for",
    errno.EROFS: "read-only file system, cannot write",
    errno.ENOTDIR: "expected a folder, got a file",
    errno.EEXIST: "expected a folder, got an existing file",
    errno.EISDIR: "expected a file, got a folder",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.EFBIG: "the file is too large for this file system",
    errno.ELOOP: "a symbolic link leads back to itself",
    errno.EIO: "the disk or the network reports an error for",
    errno.ESTALE: "the network drive has lost",
}


def _describe_file_error(error: OSError) -> str:
    """Return what happened to which file, in one line."""
    reason = _FILE_ERRORS.get(error.errno or 0) or error.strerror or type(error).__name__
    name = "the output" if error.filename is None else error.filename
    return f"{reason}: {os.fsdecode(name) if isinstance(name, bytes) else name}"


def _accept_any_file_name() -> None:
    """Let names that are not UTF-8 be printed: on stdout as their bytes, on stderr with their codes."""
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _print_error(sentence: str) -> None:
    print(f"selfsr: {sentence}", file=sys.stderr)
