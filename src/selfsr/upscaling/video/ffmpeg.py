"""Find and run ffmpeg."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from selfsr.errors import InputError


def find_program(name: str, path: Path) -> str:
    """Return the path of a program.

    Args:
        name: ffmpeg or ffprobe.
        path: the video, for the error.

    Raises:
        InputError: it is not installed.
    """
    program = shutil.which(name)
    if program is None:
        raise InputError(
            f"{path}: expected the program {name} to read a video, got none; install ffmpeg (apt, brew or winget "
            "install ffmpeg)."
        )
    return program


@contextmanager
def start_process(
    command: Sequence[str], *, stdin: int, stdout: int
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Yield a process and the file of its messages; it is killed if the block fails.

    The process has a session of its own, so that Ctrl-C reaches only this program.

    Args:
        command: program and options.
        stdin: as in `subprocess.Popen`.
        stdout: as in `subprocess.Popen`.
    """
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=messages, start_new_session=True)
        try:
            yield process, messages
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close(pipe)


def read_reason(messages: IO[bytes]) -> str:
    """Return the first message of a process, as the end of a sentence."""
    messages.seek(0)
    lines = [line.strip() for line in messages.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return shorten_reason(lines)


def shorten_reason(lines: Sequence[str]) -> str:
    """Return the first line of ffmpeg's messages, from which the others follow, without its prefix.

    Example:
        >>> shorten_reason(["[mp4 @ 0x55d0] Could not find tag for codec vorbis.", "Conversion failed!"])
        'Could not find tag for codec vorbis'
    """
    if not lines:
        return "no reason"
    text = lines[0]
    if text.startswith("[") and "] " in text:
        text = text.partition("] ")[2]
    return text.rstrip(".!")


def run_quietly(command: Sequence[str]) -> str | None:
    """Run a command to its end; return why it failed, or None."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == 0:
        return None
    return shorten_reason(
        [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    )


def _close(pipe: IO[bytes]) -> None:
    with suppress(OSError):  # the process ended before it read everything
        pipe.close()
