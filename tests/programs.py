"""Python programs as processes of their own that start within milliseconds.

A new interpreter takes seconds to import PyTorch. On Linux these processes are forks of one that has imported it. Tests
of imports need a new interpreter instead.
"""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

_CAN_FORK = sys.platform == "linux"


class Program:
    """A started program, as `subprocess.Popen`. Its output goes to files, so that it never waits for a reader.

    Args:
        arguments: those of Python.
        cwd: its folder.
        environment: all its variables.
        output: a file for everything that it prints; None keeps stdout and stderr apart.
    """

    def __init__(
        self, arguments: list[str], cwd: Path, environment: dict[str, str], output: Path | None = None
    ) -> None:
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._stdout, self._stderr = ((output or Path(folder, name)).absolute() for name in ("stdout", "stderr"))
        for path in (self._stdout, self._stderr):
            path.touch()
        self.returncode: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if _CAN_FORK:
            request = {"arguments": arguments, "cwd": str(cwd), "environment": environment}
            self.pid: int = _ask({**request, "stdout": str(self._stdout), "stderr": str(self._stderr)})
        else:
            with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
                self._process = subprocess.Popen(
                    [sys.executable, *arguments], cwd=cwd, env=environment, stdout=stdout, stderr=stderr
                )
            self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the status, negative for a signal; None while the program runs."""
        if self.returncode is None:
            self.returncode = self._process.poll() if self._process else _ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout_s: float = 120) -> int:
        """Return the status after the end."""
        deadline = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the program did not end within {timeout_s} s: {self.stderr}")
            time.sleep(0.01)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal if the program still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the program if it still runs, and wait for its end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            self.wait()

    @property
    def stdout(self) -> str:
        """What the program has printed so far; bytes that are not UTF-8 are escaped as in names of files."""
        return os.fsdecode(self._stdout.read_bytes())

    @property
    def stderr(self) -> str:
        """What the program has printed to stderr so far."""
        return os.fsdecode(self._stderr.read_bytes())


def start_python(*arguments: object, cwd: Path | None = None, **environment: str) -> Program:
    """Start Python with `-c CODE`, `-m MODULE` or a file and further arguments, with additions to the environment.

    The program can import the modules of this folder, too.
    """
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PYTHONPATH": paths, **environment}
    return Program([str(each) for each in arguments], cwd or Path.cwd(), {**os.environ, **environment})


def run_python(*arguments: object, cwd: Path | None = None, timeout_s: float = 120, **environment: str) -> Program:
    """Run Python as `start_python` does, until its end."""
    program = start_python(*arguments, cwd=cwd, **environment)
    program.wait(timeout_s)
    return program


@functools.cache
def _start_server() -> subprocess.Popen[str]:
    path = Path(__file__).with_name("program_server.py")
    server = subprocess.Popen([sys.executable, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def _ask(request: dict) -> int | None:
    server = _start_server()
    assert server.stdin is not None
    assert server.stdout is not None
    print(json.dumps(request), file=server.stdin, flush=True)
    line = server.stdout.readline()
    assert line, "the server of programs has ended"
    return json.loads(line)
