"""The command line: one module for each command. Commands import their modules when they run, for a fast --help."""

import errno
import io
import os
import sys
import threading
from typing import Any

try:
    import typer
except ImportError:  # selfsr is installed with the losses only
    sys.exit('selfsr: the command line needs more packages; install them with: pip install "selfsr[train]"')

from selfsr.cli import (
    bench,
    compare,
    data,
    degrade,
    demo,
    doctor,
    evaluate,
    export,
    finetune,
    inspect,
    models,
    prompt,
    recipes,
    report,
    study,
    train,
    upscale,
)
from selfsr.errors import InputError
from selfsr.machine.lost import LostProcess

app: typer.Typer = typer.Typer(
    name="selfsr",
    help="Train, evaluate and run image super-resolution models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


# That of a process that the signal SIGPIPE ends, in a shell.
CLOSED_PIPE_STATUS = 128 + 13


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


app.command("train", epilog=train.EPILOG, cls=train.TrainCommand)(train.train)
app.command("finetune", epilog=finetune.EPILOG)(finetune.finetune)
app.command("evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
app.command("upscale", epilog=upscale.EPILOG)(upscale.upscale)
app.command("inspect", epilog=inspect.EPILOG)(inspect.inspect)
app.command("export", epilog=export.EPILOG)(export.export)
app.command("prompt", epilog=prompt.EPILOG)(prompt.prompt)
app.command("degrade", epilog=degrade.EPILOG)(degrade.degrade)
app.command("report", epilog=report.EPILOG)(report.report)
app.command("study", epilog=study.EPILOG)(study.study)
app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("bench", epilog=bench.EPILOG)(bench.bench)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.add_typer(data.app, name="data", help="Check and prepare training images.")
app.add_typer(models.app, name="models", help="List and show the shipped models, and make one.")
app.add_typer(recipes.app, name="recipes", help="List, show and copy the shipped recipes; list the networks.")


def main() -> None:
    """Run the command line.

    The exit status is 0 after success, 1 after a crash (with a traceback), 2 after a user's mistake and 3 after a file
    error (each with one sentence on stderr), 4 if a training diverged, 5 if another process of it was lost, and 130
    after Ctrl-C. A reader of the output that stops early, such as `head`, ends any command without a message and with
    `CLOSED_PIPE_STATUS`.
    """
    outputs = _watch_outputs()
    _accept_any_file_name()
    try:
        _run()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if any(output.is_closed_early for output in outputs):
            sys.exit(CLOSED_PIPE_STATUS)


def _run() -> None:
    """Run the command and turn its errors into sentences and statuses."""
    try:
        app()
    except InputError as error:
        _print_error(str(error))
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno not in _FILE_ERRORS:
            raise
        _print_error(f"{_describe_file_error(error)}; files written before are complete.")
        sys.exit(3)
    except KeyboardInterrupt:
        _print_error("stopped.")
        sys.exit(130)
    except LostProcess as error:
        _print_error(str(error))
        sys.exit(5)


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


class _Output(io.FileIO):
    """A standard stream that ends the command when its reader has closed it.

    Without it, the status depends on who writes: typer and rich exit with 1, the interpreter at its end with 120.
    """

    is_closed_early = False

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except BrokenPipeError:
            self.is_closed_early: bool = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # for what is still in buffers
            if threading.current_thread() is threading.main_thread():
                sys.exit(CLOSED_PIPE_STATUS)
            return len(data)  # `main` exits at the end


def _watch_outputs() -> list[_Output]:
    """Replace the standard streams of the process by watched ones, if nothing else has replaced them."""
    outputs = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or stream is not getattr(sys, f"__{name}__"):
            continue
        stream.flush()
        output = _Output(stream.fileno(), "w", closefd=False)
        outputs.append(output)
        buffer = io.BufferedWriter(output)
        line_buffering = stream.line_buffering or name == "stderr"
        setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=line_buffering))
    return outputs


def _accept_any_file_name() -> None:
    """Let names that are not UTF-8 be printed: on stdout as their bytes, on stderr with their codes."""
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _print_error(sentence: str) -> None:
    print(f"selfsr: {sentence}", file=sys.stderr)
