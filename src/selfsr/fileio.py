"""Write files atomically: readers find the complete old file or the complete new one, even after a crash."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from selfsr.errors import InputError

# A name of its own, not the target's with a suffix: a target may already be as long as the file system allows.
_PREFIX, _SUFFIX = ".selfsr-", ".part"


def write_atomic(path: Path, content: str | bytes | memoryview | Iterable[bytes]) -> None:
    """Write a file completely or not at all, in a folder that is created if needed.

    The content goes to a temporary file in the same folder, is synced to the disk and then renamed. If anything fails,
    the temporary file is removed and an existing file stays as it is. A device or a pipe is written directly.

    Args:
        path: the file to write or replace.
        content: text, bytes, or an iterable of bytes, which is written as it is produced. Text is encoded as UTF-8; a
            file name in it that is not UTF-8 is written with its codes.

    Raises:
        OSError: the disk is full or the folder not writable; `filename` is `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    chunks = [content] if isinstance(content, bytes | memoryview) else content
    if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe, which has no old content
        with path.open("wb") as file:
            file.writelines(chunks)
        return
    temporary = _temporary_path(path)
    with _removed_on_failure(temporary, path):
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def write_file_atomic(path: Path) -> Iterator[Path]:
    """Let another program write a file: yield a temporary name that becomes `path` when the block ends.

    If the block fails, the temporary file is removed and an existing file stays as it is.

    Args:
        path: the file to write or replace, in a folder that is created if needed.

    Yields:
        The temporary file, next to `path`; it does not exist yet.

    Raises:
        OSError: the disk is full or the folder not writable; `filename` is `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path)
    with _removed_on_failure(temporary, path):
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose result it will be; nothing stays behind.

    Args:
        path: the file. Folders that are missing are not created.

    Raises:
        OSError: the nearest folder that exists is not writable; `filename` is `path`.
    """
    if path.exists() and not path.is_file():  # a device, a pipe, or a folder, which write_atomic refuses
        return
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    temporary = _temporary_path(folder / path.name)
    with _removed_on_failure(temporary, path):
        temporary.touch()
        temporary.unlink()


def check_replaceable(path: Path, suffixes: tuple[str, ...], option: str) -> None:
    """Check that a result does not replace a file of another type, such as an image or weights.

    Args:
        path: the file to write.
        suffixes: the suffixes of such results; the first one is in the message.
        option: command and option, such as "evaluate: --out".

    Raises:
        InputError: the file exists and has another suffix.
    """
    if path.is_file() and path.suffix.lower() not in suffixes:
        raise InputError(
            f"{option}: expected a new file, or a {suffixes[0]} file to replace, got {path}, which exists; choose "
            "another name."
        )


@contextlib.contextmanager
def write_folder_atomic(path: Path) -> Iterator[Path]:
    """Write a folder completely or not at all: yield a temporary folder that gets its name at the end.

    When the block ends, all files are synced to the disk and the folder is renamed; a folder that is already there is
    replaced. If the block or anything else fails, the temporary folder is removed and an existing one stays as it is.

    Args:
        path: the folder to write or replace.

    Yields:
        The temporary folder, next to `path`.

    Raises:
        OSError: the disk is full or the parent folder not writable; `filename` is `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(path)
    with _removed_on_failure(temporary, path):
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        replaced = _temporary_path(path)
        if path.exists():
            os.replace(path, replaced)  # a folder that is not empty cannot be replaced in one step
        try:
            os.replace(temporary, path)
        except BaseException:
            if replaced.exists():
                os.replace(replaced, path)
            raise
        shutil.rmtree(replaced, ignore_errors=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left in a folder; call it only where no other process writes."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        _remove(path)


def _temporary_path(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{secrets.token_hex(4)}{_SUFFIX}")


@contextlib.contextmanager
def _removed_on_failure(temporary: Path, path: Path) -> Iterator[None]:
    """Remove the temporary file or folder if the block fails, and name `path` in its OSError."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            _remove(temporary)
        if isinstance(error, OSError):  # a full disk comes without a name, other errors with the temporary one
            error.filename, error.filename2 = str(path), None
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
