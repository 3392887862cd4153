"""Check whether the processes of several machines can meet, where torchrun waits for them."""

import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from selfsr.errors import InputError

_PLACE = "doctor: --rendezvous"
_HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Endpoint:
    """The machine and the port at which torchrun waits for all processes.

    Attributes:
        host: its name or address.
        port: its port, 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Return machine and port of `HOST:PORT`, as torchrun's `--rdzv-endpoint` takes it.

    Args:
        text: an IPv6 address is in brackets.

    Raises:
        InputError: the text has another form, or the port is not from 1 to 65535.

    Example:
        >>> parse_endpoint("[fe80::1]:29500")
        Endpoint(host='fe80::1', port=29500)
    """
    host, separator, port = text.strip().rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    well_formed = host and separator and (is_bracketed or ":" not in host) and port.isascii() and port.isdigit()
    if not well_formed or not 1 <= int(port) <= _HIGHEST_PORT:
        raise InputError(
            f"{_PLACE}: expected HOST:PORT with a port from 1 to {_HIGHEST_PORT}, got {text!r}; pass what torchrun "
            "gets as --rdzv-endpoint, such as node0:29500."
        )
    return Endpoint(host.strip("[]"), int(port))


def check_rendezvous(endpoint: Endpoint, timeout_s: float) -> str:
    """Connect to the place where torchrun waits; return what was found, as a sentence.

    On the machine of the endpoint itself, it is enough that the port is free.

    Args:
        endpoint: machine and port.
        timeout_s: limit for looking up the name, for connecting, and for an answer, in seconds each.

    Raises:
        InputError: the machine cannot be found or reached, nothing or another program waits there, or torchrun would
            not know that this machine is the one; the sentence says which.
    """
    family, address = _resolve(endpoint, timeout_s)
    started = time.perf_counter()
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(address)
    except TimeoutError:
        raise InputError(
            f"{_PLACE}: expected a connection to {endpoint}, got no answer within {timeout_s:g} s; open the port in "
            "the firewalls between the machines, and check that the machine is on."
        ) from None
    except ConnectionRefusedError:
        if not _is_here(family, address):
            raise InputError(
                f"{_PLACE}: expected torchrun at {endpoint}, got no program that listens there, though the machine "
                "answers; start torchrun on it first, or correct the port."
            ) from None
        return _check_free(endpoint, family, address)
    except OSError as error:
        raise InputError(
            f"{_PLACE}: expected a connection to {endpoint}, got {error.strerror or error}; check the address and the "
            "network of both machines."
        ) from error
    milliseconds = 1000 * (time.perf_counter() - started)
    _check_answer(endpoint, timeout_s)
    return f"torchrun waits at {endpoint} and answers (connected in {milliseconds:.1f} ms)."


def _resolve(endpoint: Endpoint, timeout_s: float) -> tuple[socket.AddressFamily, tuple]:
    """Return family and address of the machine."""
    found: list[tuple] = []

    def look_up() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend(socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM))

    # A name server that does not answer blocks for minutes, so the thread may outlive this call.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not found:
        reason = f"no answer of the name server within {timeout_s:g} s" if thread.is_alive() else "an unknown name"
        raise InputError(
            f"{_PLACE}: expected the name or address of a machine, got {endpoint.host}, {reason}; pass its IP address, "
            "or add it to the hosts file."
        )
    family, _, _, _, address = found[0]
    return family, address


def _is_here(family: socket.AddressFamily, address: tuple) -> bool:
    """Return whether an address is one of this machine: only those can be bound."""
    with socket.socket(family, socket.SOCK_STREAM) as candidate:
        try:
            candidate.bind((address[0], 0, *address[2:]))
        except OSError:
            return False
    return True


def _check_free(endpoint: Endpoint, family: socket.AddressFamily, address: tuple) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as candidate:
        try:
            candidate.bind(address)
            candidate.listen()
        except OSError as error:
            advice = "choose a port above 1023" if error.errno == errno.EACCES else "choose another port"
            raise InputError(
                f"{_PLACE}: expected a port that is free on this machine, got {endpoint} ({error.strerror}); {advice}."
            ) from error
    if not _is_known_to_torchrun(endpoint.host):
        raise InputError(
            f"{_PLACE}: expected a name by which torchrun knows this machine, got {endpoint.host}; start torchrun here "
            "with --rdzv-conf is_host=1."
        )
    return f"{endpoint} is this machine and the port is free; start torchrun here first, then check on the others."


def _is_known_to_torchrun(host: str) -> bool:
    try:
        from torch.distributed.elastic.rendezvous.utils import _matches_machine_hostname
    except ImportError:  # a version of torch that finds out in another way
        return True
    try:
        return _matches_machine_hostname(host)
    except OSError:  # the name of this machine has no address
        return False


# Joins the store in a process of its own, since torch prints its attempts, and may block longer than the limit.
_JOIN = """
import sys
from datetime import timedelta
from torch.distributed import TCPStore
print("ready", flush=True)
limit = timedelta(seconds=float(sys.argv[3]))
TCPStore(sys.argv[1], int(sys.argv[2]), is_master=False, timeout=limit, wait_for_workers=False)
print("joined", flush=True)
"""


def _check_answer(endpoint: Endpoint, timeout_s: float) -> None:
    """Check that the program that listens is a store of torch."""
    command = [sys.executable, "-c", _JOIN, endpoint.host, str(endpoint.port), str(timeout_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # torch is imported; the limit begins
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            output = ""
        process.kill()
    if "joined" not in output:
        raise InputError(
            f"{_PLACE}: expected torchrun at {endpoint}, got another program that listens there; choose another port."
        )
