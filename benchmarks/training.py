"""What a user gets from `python -m job train`: figures and times, from the command to the exported version.

    python benchmarks/training.py ROOT [--seeds 0,1,2] [--set KEY=VALUE ...]

Trains one run per seed in a temporary folder, each from a cold cache, and prints Markdown tables. Run it on a machine
that does nothing else.
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
from pathlib import Path
from typing import Any

FIGURES = ("accuracy", "auc", "f1")


def train(root: str, seed: int, overrides: list[str], folder: Path) -> dict[str, Any]:
    """One run in a process of its own: its summary, its lines of metrics, and the wall seconds of the command."""
    settings = [
        f"data.root={root}",
        f"runs={folder}",
        f"export.root={folder}/models",
        f"training.seed={seed}",
        *overrides,
    ]
    command = [
        sys.executable,
        "-m",
        "job",
        "train",
        "--run",
        f"seed-{seed}",
        *(w for s in settings for w in ("--set", s)),
    ]
    began = time.perf_counter()
    environment = os.environ | {"COVID_CT_CACHE": str(folder / f"cache-{seed}")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds = time.perf_counter() - began
    lines = (folder / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
    return {"summary": json.loads(done.stdout), "metrics": [json.loads(line) for line in lines], "command": seconds}


def interval(figure: dict[str, float]) -> str:
    """A figure with its 95% interval."""
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        found = {seed: train(args.root, seed, args.set, Path(folder)) for seed in seeds}
    print("| seed | " + " | ".join(f"test {name}" for name in FIGURES) + " |")
    print("|---" * (len(FIGURES) + 1) + "|")
    for seed, each in found.items():
        figures = each["summary"]["figures"]
        print(f"| {seed} | " + " | ".join(interval(figures[name]) for name in FIGURES) + " |")

    def median(values: list[float]) -> float:
        return statistics.median(values)

    phases = list(found[seeds[0]]["summary"]["seconds"])
    later = [line for each in found.values() for line in each["metrics"][1:]]
    memory = [each["summary"]["peak_memory_bytes"] for each in found.values()]
    print(f"\n| median of {len(seeds)} runs | |\n|---|---|")
    print(f"| images/s in training, epoch 2 and later | {median([line['images_per_second'] for line in later]):.0f} |")
    print(f"| share of step time spent waiting for data | {median([line['data_wait_share'] for line in later]):.2%} |")
    for phase in phases:
        print(f"| seconds: {phase} | {median([each['summary']['seconds'][phase] for each in found.values()]):.1f} |")
    print(f"| seconds: the whole command | {median([each['command'] for each in found.values()]):.1f} |")
    for process in ("driver", "worker_0"):
        print(f"| peak memory, MB: {process} | {median([held[process] for held in memory]) / 1e6:.0f} |")


if __name__ == "__main__":
    main()
