"""The command line: one module for a verb, registered here. What a verb needs is imported inside it."""

import errno
import sys

try:
    import typer
except ImportError:  # the losses are installed without the trainer
    sys.exit('selfsr: the command line needs the trainer; install it with: pip install "selfsr[train]"')

from selfsr.cli import bench, data, degrade, demo, doctor, evaluate, recipes, report, study, train, upscale
from selfsr.errors import InputError

app = typer.Typer(
    name="selfsr",
    help="Train, run and judge image super-resolution models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        from selfsr import __version__

        typer.echo(f"selfsr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
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
app.add_typer(data.app, name="data", help="Look after training pictures.")
app.add_typer(recipes.app, name="recipes", help="List, show and copy the recipes that come with selfsr.")


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit status 2, a crash is a traceback and 1."""
    try:
        app()
    except InputError as error:
        _say(str(error))
        sys.exit(2)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _say(f"{_DISK[error.errno]}: {error.filename or 'the output'}; what was written before is whole.")
        sys.exit(3)
    except KeyboardInterrupt:
        _say("stopped.")
        sys.exit(130)


_DISK = {
    errno.ENOSPC: "the disk is full, cannot write",
    errno.EDQUOT: "the disk quota is used up, cannot write",
    errno.ENOENT: "there is no such place",
    errno.EACCES: "no permission for",
    errno.EPERM: "no permission for",
    errno.EROFS: "the file system is read-only, cannot write",
    errno.ENOTDIR: "a folder was expected, but this is a file",
    errno.EEXIST: "already there, and not a folder",
}


def _say(sentence: str) -> None:
    print(f"selfsr: {sentence}", file=sys.stderr)
