"""A Ray cluster of separate processes, as KubeRay starts them in pods: for tests, on loopback, with token authentication."""

from __future__ import annotations

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
from collections.abc import Iterator, Mapping, Sequence
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
    """Ray's temporary folder."""
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
        RuntimeError: a node is not healthy within a minute and a half.
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
        _wait_healthy(f"http://127.0.0.1:{agent}/api/healthz", nodes[-1], folder / f"{name}.log")

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
        for number, arguments in enumerate(workers):
            start(f"worker-{number}", f"--address=127.0.0.1:{gcs}", *arguments)
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


def _wait_healthy(url: str, node: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and node.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"a Ray node is not healthy:\n{log.read_text(errors='replace')[-3000:]}")


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
