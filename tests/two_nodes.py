"""Two machines on a computer: network namespaces with a cable between them, as root on Linux."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PORT = 29500
ADDRESSES = ("10.231.7.1", "10.231.7.2")


class Nodes:
    """Two nodes that share no network but their cable. Files are shared, so each needs a folder of its own.

    Args:
        names: the namespaces.
        interfaces: the ends of the cable.
    """

    def __init__(self, names: tuple[str, ...], interfaces: tuple[str, ...]) -> None:
        self.names = names
        self.interfaces = interfaces

    def start_torchrun(self, node: int, *program: str | Path, cwd: Path, restarts: int = 0) -> subprocess.Popen[str]:
        """Start Python with these arguments as one process of this node, by torchrun, as the guide says."""
        launcher = [
            *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", str(restarts), "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}", "--rdzv-id", "nodes", "--local-addr", ADDRESSES[node]),
            *("--rdzv-conf", f"is_host={1 - node}"),
        ]
        found = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": found}
        python = ["ip", "netns", "exec", self.names[node], sys.executable, "-m", "torch.distributed.run"]
        with (cwd / "stderr.txt").open("w") as stderr:
            return subprocess.Popen(
                [*python, *launcher, *map(str, program)],
                cwd=cwd,
                env={**os.environ, **own, "GLOO_SOCKET_IFNAME": self.interfaces[node]},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
            )

    def kill(self, node: int) -> None:
        """Kill every process of a node."""
        pids = subprocess.run(["ip", "netns", "pids", self.names[node]], capture_output=True, text=True, check=True)
        for pid in pids.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def make_nodes() -> Iterator[Nodes]:
    """Make two nodes; skip the test where they cannot be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the program ip")
    tag = secrets.token_hex(3)
    nodes = Nodes((f"selfsr-{tag}-0", f"selfsr-{tag}-1"), (f"v{tag}a", f"v{tag}b"))
    try:
        _connect(nodes)
        yield nodes
    finally:
        for node, name in enumerate(nodes.names):
            if Path("/run/netns", name).exists():
                nodes.kill(node)
                subprocess.run(["ip", "netns", "del", name], check=True)  # and its end of the cable


def _connect(nodes: Nodes) -> None:
    cable = f"ip link add {nodes.interfaces[0]} type veth peer name {nodes.interfaces[1]}"
    commands = [*(f"ip netns add {name}" for name in nodes.names), cable]
    for name, interface, address in zip(nodes.names, nodes.interfaces, ADDRESSES, strict=True):
        commands += [
            f"ip link set {interface} netns {name}",
            f"ip -n {name} addr add {address}/24 dev {interface}",
            f"ip -n {name} link set {interface} up",
            f"ip -n {name} link set lo up",
        ]
    for command in commands:
        done = subprocess.run(command.split(), capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no network namespace here: {command}: {done.stderr.strip()}")
