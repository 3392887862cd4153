"""The check of a rendezvous: each way in which it is blocked is one sentence, within the time limit."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from torch import distributed
from typer.testing import CliRunner

from selfsr.cli import app
from selfsr.errors import InputError
from selfsr.machine import rendezvous
from selfsr.machine.rendezvous import Endpoint, check_rendezvous, parse_endpoint


@contextmanager
def listen() -> Iterator[int]:
    """Yield a port at which a program listens, but never says anything."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def find_free_port() -> int:
    with listen() as port:
        return port


def refusal(endpoint: str, timeout_s: float = 1.0) -> str:
    with pytest.raises(InputError) as error:
        check_rendezvous(parse_endpoint(endpoint), timeout_s)
    return str(error.value)


def test_endpoints_are_parsed_as_torchrun_does() -> None:
    assert parse_endpoint("node0:29500") == Endpoint("node0", 29500)
    assert parse_endpoint("10.0.0.1:1") == Endpoint("10.0.0.1", 1)
    assert str(parse_endpoint("[::1]:29500")) == "[::1]:29500"


@pytest.mark.parametrize("text", ["", "node0", "node0:", ":29500", "node0:0", "node0:65536", "node0:x", "::1:29500"])
def test_other_texts_are_refused(text: str) -> None:
    assert f"expected HOST:PORT with a port from 1 to 65535, got {text!r}; pass what" in refusal(text)


def test_a_store_of_torch_answers() -> None:
    with listen() as port:
        pass
    store = distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    sentence = check_rendezvous(Endpoint("127.0.0.1", port), 10)
    assert sentence.startswith(f"torchrun waits at 127.0.0.1:{port} and answers (connected in ")
    store.set("key", "value")  # the check leaves it usable
    store.set_timeout(timedelta(seconds=5))
    assert store.get("key") == b"value"


def test_the_machine_itself_needs_a_free_port() -> None:
    port = find_free_port()
    assert f"localhost:{port} is this machine and the port is free" in check_rendezvous(Endpoint("localhost", port), 5)


def test_another_program_is_told_within_the_limit() -> None:
    with listen() as port:
        start = time.monotonic()
        assert "got another program that listens there; choose another port." in refusal(f"127.0.0.1:{port}", 0.5)
        assert time.monotonic() - start < 30  # without a limit it would be minutes


def test_a_name_that_torchrun_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_is_known_to_torchrun", lambda host: False)
    assert "got localhost; start torchrun here with --rdzv-conf is_host=1." in refusal(f"localhost:{find_free_port()}")


def test_a_machine_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_is_here", lambda family, address: False)
    assert "though the machine answers; start torchrun on it first" in refusal(f"localhost:{find_free_port()}")


def test_an_unknown_name_is_told() -> None:
    assert "got no-such-machine.invalid, " in refusal("no-such-machine.invalid:29500")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "got no answer within 1 s; open the port in the firewalls"),
        (OSError(101, "Network is unreachable"), "got Network is unreachable; check the address"),
    ],
)
def test_a_blocked_connection_is_told(monkeypatch: pytest.MonkeyPatch, error: OSError, words: str) -> None:
    def fail(self: socket.socket, address: object) -> None:
        raise error

    monkeypatch.setattr(socket.socket, "connect", fail)
    assert words in refusal("127.0.0.1:29500")


def test_the_command_prints_the_sentence_and_refuses_a_limit_without_it() -> None:
    port = find_free_port()
    done = CliRunner().invoke(app, ["doctor", "--rendezvous", f"localhost:{port}"])
    assert (done.exit_code, len(done.output.splitlines())) == (0, 1), done.output
    assert "the port is free" in done.output
    refused = CliRunner().invoke(app, ["doctor", "--timeout-s", "3"])
    assert isinstance(refused.exception, InputError)
    assert "expected no --timeout-s without --rendezvous" in str(refused.exception)
