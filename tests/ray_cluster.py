"""A Ray cluster of separate processes, as KubeRay starts them in pods: for tests, on loopback, with a token."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class RayCluster:
    """A cluster that runs."""

    dashboard: str
    """Where jobs are submitted: http://127.0.0.1:PORT."""
    environment: Mapping[str, str]
    """What `ray job` needs, the token among it."""
    folder: Path
    """Ray's files, its logs among them."""
    nodes: Sequence[subprocess.Popen[bytes]]
    """`ray start --block` of the head and of each worker; each leads a process group of its own."""

    def kill(self) -> None:
        """Ends all of its processes at once, as when the machines are lost."""
        for node in self.nodes:
            _kill_tree(node)


@contextmanager
def ray_cluster(head: Sequence[str], workers: Sequence[Sequence[str]], env: Mapping[str, str]) -> Iterator[RayCluster]:
    """Runs `ray start --head HEAD...` and `ray start WORKER...` for each worker, and ends them with the `with`.

    `env` is added to the processes' environment: what a container's environment holds in a cluster.

    Raises:
        RuntimeError: a node does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's socket paths are limited to 107 bytes
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    path = os.pathsep.join([str(RAY.parent), os.environ["PATH"]])
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_", "PYTEST_"))}
    environment = {
        **clean,
        **token,
        **env,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
    }
    ports = iter(free_ports(3 + 6 * (1 + len(workers))))
    gcs, dashboard, client = next(ports), next(ports), next(ports)
    nodes: list[subprocess.Popen[bytes]] = []
    agents: list[int] = []

    def start(name: str, *arguments: str) -> None:
        agent = next(ports)
        command = [str(RAY), "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={next(ports)}"]
        command += [f"--metrics-export-port={next(ports)}", f"--runtime-env-agent-port={next(ports)}"]
        command += [f"--node-manager-port={next(ports)}", f"--object-manager-port={next(ports)}", *arguments]
        with (folder / f"{name}.log").open("wb") as log:
            nodes.append(
                subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
            )
        agents.append(agent)

    try:
        start(
            "head",
            "--head",
            f"--port={gcs}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            "--dashboard-host=127.0.0.1",
            f"--temp-dir={folder}",
            *head,
        )
        _wait_until(lambda: _listens(gcs), nodes[0], folder)
        for number, arguments in enumerate(workers):
            start(f"worker-{number}", f"--address=127.0.0.1:{gcs}", *arguments)
        for agent, node in zip(agents, nodes, strict=True):
            _wait_until(functools.partial(_healthy, agent), node, folder)
        yield RayCluster(f"http://127.0.0.1:{dashboard}", environment, folder, nodes)
    finally:
        for node in reversed(nodes):
            _kill_tree(node)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that nothing uses at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until(there: Callable[[], bool], node: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 200
    while not there():
        if time.monotonic() > deadline or node.poll() is not None:
            logs = "\n".join(path.read_text(errors="replace")[-3000:] for path in folder.glob("*.log"))
            raise RuntimeError(f"a Ray node did not start:\n{logs}")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _healthy(agent: int) -> bool:
    """What KubeRay's probes ask of a node."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{agent}/api/healthz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _kill_tree(node: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and all that descends from it: Ray's processes leave their parent's process group."""
    tree = [node.pid]
    for pid in tree:
        tree += _children(pid)
    for pid in tree:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def _children(pid: int) -> list[int]:
    found = []
    for threads in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # ended meanwhile
            found += [int(child) for child in threads.read_text().split()]
    return found
