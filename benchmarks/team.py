"""Workers as processes of their own on this machine, which know of each other as Ray Train would tell them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping

from tests.ports import free_ports


def start(
    command: Callable[[int], list[str]], workers: int, environment: Mapping[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """Starts a process for each rank, with its TF_CONFIG and its standard output as a pipe."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes = []
    for rank in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        known = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {}), "TF_CONFIG": json.dumps(config)}
        processes.append(subprocess.Popen(command(rank), env=known, stdout=subprocess.PIPE, text=True))
    return processes
