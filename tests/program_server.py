"""Fork Python programs from an interpreter that has imported the package; `programs.py` sends the requests.

A request and its answer are a line of JSON each. In the server `serve` does not return; in each fork it returns, and
the program is run. The fork ends without freeing its objects one by one, which takes a second after an import of
PyTorch.
"""

import atexit
import contextlib
import json
import os
import runpy
import sys
import threading
import traceback

import torch
import torch._dynamo  # which PyTorch imports for the first optimizer

import selfsr.cli
import selfsr.training.loop  # noqa: F401 - what most programs need

with contextlib.suppress(ImportError):
    import numba  # noqa: F401 - of the compiled backend


def serve() -> list[str]:
    """Answer requests until stdin ends; return the arguments of Python in each fork."""
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = None if pid == 0 else os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                answers.close()
                prepare(request)
                return request["arguments"]
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)


def prepare(request: dict) -> None:
    """Take over streams, folder and environment of a request."""
    for descriptor, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND if descriptor else os.O_RDONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))  # as it would at its import


def run_to_end(arguments: list[str]) -> int:
    """Run a program as `run` does; return the status with which an interpreter would end."""
    status = 0
    try:
        run(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status


def run(arguments: list[str]) -> None:
    """Run `-c CODE ...`, `-m MODULE ...` or `FILE ...` as the main program."""
    sys.argv = arguments
    sys.path.insert(0, "" if arguments[0] in ("-c", "-m") else os.path.dirname(os.path.abspath(arguments[0])))
    if arguments[0] == "-c":
        exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    os._exit(run_to_end(serve()))
