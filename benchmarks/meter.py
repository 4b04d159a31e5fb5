"""Runs one command and measures it from outside: wall time, peak memory of all its processes, when a file appeared.

    python -m benchmarks.meter --result FILE [--watch FILE] -- COMMAND...

Uses the standard library only, so that it starts at once and adds nothing to what it measures. The clock starts when
the command does, not while a wrapper around the meter waits for a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PERIOD = 0.5
"""Seconds between two looks at the processes' memory: each takes about 3 ms of one processor."""


def run_metered(
    command: Sequence[str], folder: Path, wrap: Sequence[str], watch: Path | None = None
) -> tuple[dict[str, Any], str]:
    """What the meter saw of a command, and its standard output. A failure ends the bench with what the command said."""
    result = folder / "meter.json"
    meter = [sys.executable, "-m", "benchmarks.meter", "--result", str(result)]
    meter += ["--watch", str(watch)] if watch else []
    environment = os.environ | {"COVID_CT_CACHE": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run([*wrap, *meter, "--", *command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{done.stdout[-2000:]}{done.stderr[-6000:]}\nexit status {done.returncode}")
    return json.loads(result.read_text()), done.stdout


def main() -> None:
    """Writes {"started", "ended", "exit", "peak_memory", "appeared", "load_before"} to the result's file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--watch", type=Path, help="tell when this file appeared")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    measured: dict[str, float | None] = {"load_before": os.getloadavg()[0], "peak_memory": None, "appeared": None}
    measured["started"] = time.time()
    process = subprocess.Popen(command)
    over = threading.Event()
    watchers = [threading.Thread(target=_memory, args=(process.pid, measured, over))]
    if args.watch:
        watchers.append(threading.Thread(target=_appearance, args=(args.watch, measured, over)))
    for watcher in watchers:
        watcher.start()
    code = process.wait()
    measured |= {"ended": time.time(), "exit": code}
    over.set()
    for watcher in watchers:
        watcher.join()
    args.result.write_text(json.dumps(measured))
    sys.exit(code)


def _appearance(path: Path, measured: dict[str, float | None], over: threading.Event) -> None:
    while not over.wait(0.01):
        if path.exists():
            measured["appeared"] = time.time()
            return


def _memory(root: int, measured: dict[str, float | None], over: threading.Event) -> None:
    while not over.wait(_PERIOD):
        held = private_memory(root)
        if held is not None:
            measured["peak_memory"] = max(measured["peak_memory"] or 0, held)


def private_memory(root: int) -> int | None:
    """Bytes that a process and all it started hold for themselves (resident, less pages mapped from files or shared);
    None where there is no /proc. What several processes share would else be counted several times."""
    parents: dict[int, int] = {}
    try:
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    # The name, in brackets, may hold anything; the parent is the second field behind it.
                    fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                except OSError:  # ended meanwhile
                    continue
                parents[int(entry.name)] = int(fields[1])
    except FileNotFoundError:
        return None
    ours, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours, grown = ours | more, bool(more)
    total = 0
    for pid in ours:
        try:
            fields = Path(f"/proc/{pid}/statm").read_text().split()
        except OSError:
            continue
        total += (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    return total


if __name__ == "__main__":
    main()
