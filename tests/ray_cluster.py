"""A Ray cluster of separate processes, as KubeRay starts them in pods: for tests, on loopback, with a token."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.hosts import LOOPBACK, Host
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).with_name("ray")


class RayCluster:
    """A cluster that runs; made by `ray_cluster`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's sockets' paths have 107 bytes
        """Ray's files, its logs among them."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_", "PYTEST_"))}
        self.environment: Mapping[str, str] = {
            **clean,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            **env,
            "PATH": os.pathsep.join([str(RAY.parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(self.folder),
        }
        """What a driver and `ray job` need, the token among it."""
        self.nodes: list[subprocess.Popen[bytes]] = []
        """`ray start --block` of the head and of each worker; each leads a process group of its own."""
        self._ports = iter(free_ports(60))
        self.dashboard = self.address = ""
        """Where jobs are submitted, http://127.0.0.1:PORT, and what drivers join, HOST:PORT."""

    def start_head(self, host: Host, *arguments: str) -> None:
        """`ray start --head` with the arguments; returns when it answers."""
        gcs, dashboard, client = (next(self._ports) for _ in range(3))
        self.dashboard, self.address = f"http://127.0.0.1:{dashboard}", f"{host.address}:{gcs}"
        fixed = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        self._start(host, "--head", *fixed, "--dashboard-host=127.0.0.1", f"--temp-dir={self.folder}", *arguments)

    def start_worker(self, host: Host, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """`ray start` of a further node, with `env` added to its environment; returns when it answers."""
        self._start(host, f"--address={self.address}", *arguments, env=env or {})

    def kill(self) -> None:
        """Ends all of its processes at once, as when the machines are lost."""
        for node in reversed(self.nodes):
            kill_tree(node)

    def _start(self, host: Host, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        agent, grpc, metrics, runtime_env, manager, objects = (next(self._ports) for _ in range(6))
        command = [str(RAY), "start", "--block", f"--node-ip-address={host.address}", "--disable-usage-stats"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
        command += [f"--metrics-export-port={metrics}", f"--runtime-env-agent-port={runtime_env}"]
        command += [f"--node-manager-port={manager}", f"--object-manager-port={objects}", *arguments]
        environment = {**self.environment, **(env or {})}
        with (self.folder / f"node-{len(self.nodes)}.log").open("wb") as log:
            node = subprocess.Popen(
                host.command(*command), env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self.nodes.append(node)
        deadline = time.monotonic() + 200
        while not _healthy(host, agent):
            if time.monotonic() > deadline or node.poll() is not None:
                logs = "\n".join(path.read_text(errors="replace")[-3000:] for path in self.folder.glob("*.log"))
                raise RuntimeError(f"a Ray node did not start:\n{logs}")
            time.sleep(0.1)


@contextmanager
def ray_cluster(
    head: Sequence[str], workers: Sequence[Sequence[str]], env: Mapping[str, str], hosts: Sequence[Host] = ()
) -> Iterator[RayCluster]:
    """Runs `ray start --head HEAD...` and `ray start WORKER...` for each worker, and ends them with the `with`.

    `env` is added to the processes' environment: what a container's environment holds in a cluster. Nodes run on
    `hosts`, in their order, and where there are none left on this machine's loopback.

    Raises:
        RuntimeError: a node does not start.
    """
    cluster = RayCluster(env)
    places = [*hosts, *[LOOPBACK] * (1 + len(workers) - len(hosts))]
    try:
        cluster.start_head(places[0], *head)
        for host, arguments in zip(places[1:], workers, strict=True):
            cluster.start_worker(host, *arguments)
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(cluster.folder, ignore_errors=True)


def _healthy(host: Host, agent: int) -> bool:
    """What KubeRay's probes ask of a node."""
    code = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{agent}/api/healthz', timeout=5)"
    return subprocess.run(host.command(sys.executable, "-c", code), capture_output=True, check=False).returncode == 0


def kill_tree(node: subprocess.Popen[bytes]) -> None:
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
