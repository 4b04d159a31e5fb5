"""Workers as processes of their own on this machine, which know of each other as Ray Train would tell them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack


def start(
    command: Callable[[int], list[str]], workers: int, environment: Mapping[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """Starts a process for each rank, with its TF_CONFIG and its standard output as a pipe."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    processes = []
    for rank in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        known = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {}), "TF_CONFIG": json.dumps(config)}
        processes.append(subprocess.Popen(command(rank), env=known, stdout=subprocess.PIPE, text=True))
    return processes
