"""Atomic writes: complete or not at all, whatever happens meanwhile."""

import errno
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from programs import Program, run_python
from selfsr.fileio import check_writable, remove_temporaries, write_atomic, write_folder_atomic


def run_in_child(code: str, *arguments: object) -> Program:
    prelude = "import sys, os, signal\nfrom pathlib import Path\nfrom selfsr.fileio import *\n"
    return run_python("-c", prelude + textwrap.dedent(code), *arguments)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("é\n", b"\xc3\xa9\n"),
        (b"\0\1", b"\0\1"),
        (memoryview(b"abc"), b"abc"),
        ([b"a", b"", b"bc"], b"abc"),
        (iter([b"a", b"b"]), b"ab"),
        ("", b""),
    ],
)
def test_write_atomic_takes_text_bytes_and_streams(tmp_path, content, expected):
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, content)
    assert path.read_bytes() == expected
    assert os.listdir(path.parent) == ["file"]


def test_write_atomic_replaces_a_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "a long old text")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_write_atomic_syncs_before_it_renames(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(("sync", os.fstat(descriptor).st_size)))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (calls.append("rename"), rename(source, target)))
    write_atomic(tmp_path / "file", b"12345")
    assert calls == [("sync", 5), "rename"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_write_atomic_keeps_the_old_file_when_a_stream_fails(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def stream():
        yield b"new"
        raise error

    with pytest.raises(type(error)) as caught:
        write_atomic(path, stream())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    if isinstance(error, OSError):
        assert (caught.value.errno, caught.value.filename, caught.value.filename2) == (errno.ENOSPC, str(path), None)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
@pytest.mark.parametrize(
    "write",
    ["write_atomic(path, bytes(10_000))", "with write_folder_atomic(path) as f: (f / 'a').write_bytes(bytes(10_000))"],
)
def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path, write):
    """The system refuses to write beyond a limit, after the file was begun, as a full disk does."""
    path = tmp_path / "target"
    if "folder" in write:
        path.mkdir()
        (path / "a").write_text("old")
    else:
        path.write_text("old")
    child = run_in_child(
        f"""
        import resource
        path = Path(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            {write}
        except OSError as error:
            print(error.errno, error.filename, error.filename2)
        """,
        path,
    )
    assert child.stdout == f"{errno.EFBIG} {path} None\n", child.stderr
    assert ((path / "a") if "folder" in write else path).read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_killed_process_leaves_the_old_file_and_a_removable_rest(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    child = run_in_child(
        """
        def stream():
            yield b"new"
            os.kill(os.getpid(), signal.SIGKILL)
            yield b"er"
        write_atomic(Path(sys.argv[1]), stream())
        """,
        path,
    )
    assert child.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2
    (tmp_path / ".selfsr-0123abcd.part").mkdir()
    (tmp_path / ".selfsr-0123abcd.part" / "state.pt").touch()
    remove_temporaries(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    name = "n" * os.pathconf(tmp_path, "PC_NAME_MAX") if hasattr(os, "pathconf") else "n" * 200
    write_atomic(tmp_path / name, "content")
    assert (tmp_path / name).read_text() == "content"
    with write_folder_atomic(tmp_path / name.replace("n", "f")) as folder:
        (folder / name).touch()
    assert sorted(os.listdir(tmp_path)) == sorted([name, name.replace("n", "f")])
    with pytest.raises(OSError, match="name too long") as caught:
        write_atomic(tmp_path / f"{name}n", "content")
    assert caught.value.filename == str(tmp_path / f"{name}n")


def test_write_atomic_names_the_file_it_may_not_write(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError) as caught:
        write_atomic(tmp_path / "a", "content")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "a"), None)
    assert os.listdir(tmp_path) == []


def test_write_folder_atomic_creates_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder"
    for name in ("first", "second"):
        with write_folder_atomic(path) as folder:
            assert folder.parent == path.parent
            (folder / name).write_text(name)
            (folder / "sub").mkdir()
            (folder / "sub" / "file").touch()
        assert sorted(os.listdir(path)) == sorted([name, "sub"])
        assert os.listdir(path.parent) == ["folder"]


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_write_folder_atomic_keeps_the_old_folder_when_the_block_fails(tmp_path, error):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()

    def write() -> None:
        with write_folder_atomic(path) as folder:
            (folder / "new").touch()
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["folder"]
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)


def test_write_folder_atomic_restores_the_old_folder_when_the_rename_fails(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    rename, targets = os.replace, []

    def refuse_second(source, target):
        targets.append(target)
        if len(targets) == 2:
            raise PermissionError(errno.EACCES, "Permission denied", str(source), None, str(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", refuse_second)
    with pytest.raises(PermissionError) as caught, write_folder_atomic(path) as folder:
        (folder / "new").touch()
    assert caught.value.filename == str(path)
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["folder"]


def test_write_folder_atomic_syncs_its_files(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    with write_folder_atomic(tmp_path / "folder") as folder:
        (folder / "a").write_bytes(bytes(3))
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_bytes(bytes(5))
    assert sorted(sizes) == [3, 5]


def test_remove_temporaries_leaves_other_files(tmp_path):
    for name in (".hidden", "file.part", ".selfsr-notes"):
        (tmp_path / name).touch()
    (tmp_path / ".selfsr-12345678.part").symlink_to(tmp_path / ".hidden")
    remove_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", ".selfsr-notes", "file.part"]
    remove_temporaries(Path(tmp_path / "missing"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_write_atomic_writes_to_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, [b"a", b"b"])
    assert os.read(reader, 9) == b"ab"
    os.close(reader)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as error:
        check_writable(tmp_path / "file" / "scores.json")
    assert error.value.filename == str(tmp_path / "file" / "scores.json")
    check_writable(tmp_path / "missing" / "folder" / "scores.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
