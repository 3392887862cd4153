"""Lock a run folder or a study folder, so that only one process at a time writes into it."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from selfsr.errors import InputError

LOCK_NAME = ".lock"

_descriptors: set[int] = set()
_registered = False


@contextlib.contextmanager
def lock_folder(folder: Path, command: str, holder: str) -> Iterator[int | None]:
    """Lock a folder, which is created if needed, against other processes.

    The lock is that of the operating system on the file `.lock`. It lasts as long as a process has the yielded
    descriptor open, and ends with the process, however that ends. Forked processes give it up; a child gets it only
    by `pass_fds`. The file names process and machine for messages, and decides where the system has no such lock.

    Args:
        folder: the folder.
        command: name of the command, the start of a message.
        holder: the usual other process, for a message.

    Yields:
        The descriptor of the lock file; None where the system has no such lock.

    Raises:
        InputError: another process uses the folder; the message names it.
        OSError: the folder is not writable.
    """
    created = _make_folders(folder)
    path = folder / LOCK_NAME
    descriptor, locked = _open_and_lock(path)
    try:
        if locked is False or (locked is None and _is_running(_read(path))):
            raise InputError(
                f"{command}: {folder} is in use by {holder}{_describe(_read(path))}; wait for it or stop it."
            )
        _close_in_forks(descriptor)
        _write(descriptor, json.dumps(_describe_self()).encode())
        try:
            yield descriptor if locked else None
        finally:
            if created:
                _remove(path, created)
            if not locked:
                _write(descriptor, b"")
    finally:
        _descriptors.discard(descriptor)
        os.close(descriptor)


def is_in_use(folder: Path) -> bool | None:
    """Return whether a process of this machine works in a folder; None if one of another machine may do.

    The record in the lock file is read, and no lock is tried: that could disturb a run that is just starting.
    """
    record = _read(folder / LOCK_NAME)
    if isinstance(record.get("pid"), int) and record.get("host") != socket.gethostname():
        return None
    return _is_running(record)


def _open_and_lock(path: Path) -> tuple[int, bool | None]:
    """Open the lock file and try to lock it; see `_try_lock` for the second result."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        locked = _try_lock(descriptor)
        # A process that created the folder for nothing removes the file. A lock on a removed file has no effect.
        if not locked or (path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())):
            return descriptor, locked
        os.close(descriptor)
        path.parent.mkdir(parents=True, exist_ok=True)


def _write(descriptor: int, content: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, content)


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder with its parents; return the new ones, the innermost first."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return created


def _remove(path: Path, created: list[Path]) -> None:
    """Remove the lock file, and the new folders if nothing else was written into them."""
    if path.parent in created and any(entry.name != path.name for entry in path.parent.iterdir()):
        return
    with contextlib.suppress(OSError):
        path.unlink()
        for folder in created:
            folder.rmdir()


def _try_lock(descriptor: int) -> bool | None:
    """Return whether the lock was free; None where the system or the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network drives
        return None
    return True


def _close_in_forks(descriptor: int) -> None:
    """Close the descriptor in forked processes: loader processes outlive a killed training run for some seconds."""
    global _registered
    _descriptors.add(descriptor)
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_inherited)
        _registered = True


def _close_inherited() -> None:
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


def _describe_self() -> dict[str, Any]:
    process = psutil.Process()
    return {"pid": process.pid, "host": socket.gethostname(), "started": process.create_time()}


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _describe(record: dict[str, Any]) -> str:
    if not isinstance(record.get("pid"), int):
        return ""
    return f" (process {record['pid']} on {record.get('host')})"


def _is_running(record: dict[str, Any]) -> bool:
    """Return whether the recorded process still runs, as far as this machine can tell."""
    pid, host = record.get("pid"), record.get("host")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if host != socket.gethostname():
        return True
    with contextlib.suppress(psutil.Error):
        return abs(psutil.Process(pid).create_time() - float(record.get("started", 0))) < 2
    return False
