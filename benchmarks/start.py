"""What passes between the command and the first step, and after the last: seconds, by what can be seen from outside.

    python -m benchmarks.start ROOT [--runs 3] [--set KEY=VALUE ...]

Runs `job train` with an empty cache, a local Ray and one worker, two epochs each time, and looks 50 times a second at
the files and processes it makes. Linux, on a machine with no other Ray. Prints a Markdown table of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.ours import Shape, command, first_sign
from job import run

_LOOK_SECONDS = 0.02


def _commands() -> Iterator[tuple[str, Path]]:
    """The command line of every process, as far as it can be read."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"), entry
            except OSError:
                continue


def _runs(word: str) -> bool:
    return any(word in line for line, _ in _commands())


def _has_loaded(word: str, library: str) -> bool:
    for line, process in _commands():
        if word in line:
            try:
                return library in (process / "maps").read_text()
            except OSError:
                continue
    return False


def signs(folder: Path, scans: int) -> Mapping[str, Callable[[], bool]]:
    """What is waited for, in this order; `scans` are those of train and val."""
    cache, own = folder / "cache", folder / "run"
    return {
        "the catalog is made": (own / run.MANIFEST).exists,
        "Ray's own services are there": lambda: _runs("raylet/raylet "),
        "Ray Train's controller is there": lambda: _runs("ray::TrainController"),
        "a worker is there": lambda: _runs("ray::RayTrainWorker"),
        "it loads TensorFlow": lambda: _has_loaded("ray::RayTrainWorker", "libtensorflow_framework"),
        "it fills its cache": lambda: next(cache.rglob("*.rgb"), None) is not None,
        "the cache is full": lambda: sum(1 for _ in cache.rglob("*.rgb")) >= scans,
        "the first step is done": first_sign(folder).exists,
        "the last epoch is over": lambda: (
            (own / run.METRICS).exists() and len((own / run.METRICS).read_text().splitlines()) == 2
        ),
        "the test part is scored": (own / run.EVALUATION).exists,
        "the version is there": (own / run.EXPORTED).exists,
        "the report is written": (own / run.SUMMARY).exists,
    }


def measure(root: str, overrides: list[str], scans: int) -> dict[str, float]:
    """Seconds after the command at which each sign was seen, and at which the command ended."""
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        folder = Path(made)
        words = command(Shape(1, os.cpu_count() or 1), folder, "float32", 2, [f"data.root={root}", *overrides])
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        began, seen = time.monotonic(), {}
        with subprocess.Popen(words, env=os.environ | {"COVID_CT_CACHE": f"{folder}/cache"}, **quiet) as process:
            for name, sign in signs(folder, scans).items():
                while not sign():
                    if process.poll() not in (None, 0):
                        sys.exit(f"`job train` failed with exit status {process.returncode}")
                    time.sleep(_LOOK_SECONDS)
                seen[name] = time.monotonic() - began
            process.wait()
            seen["the command ends"] = time.monotonic() - began
    return seen


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scans", type=int, default=510, help="of train and val together (default: 510, of 300 + 300)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    found = [measure(args.root, args.set, args.scans) for _ in range(args.runs)]
    print(json.dumps(found), file=sys.stderr)
    print("| | s |\n|---|---|")
    for name in found[0]:
        print(f"| {name} | {statistics.median(each[name] for each in found):.1f} |")


if __name__ == "__main__":
    main()
