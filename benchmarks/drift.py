"""How far the weights of 1, 2 and 4 workers are apart after each epoch: not at all, or the order of adding is wrong.

    python -m benchmarks.drift ROOT [--workers 1,2,4] [--epochs 15] [--set KEY=VALUE ...]

The workers are processes of one thread each, as Ray Train would start them, under the same strategy. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import team
from job import catalog, checkpoint, settings
from job.order import Order
from job.scan import to_lines
from job.storage import LocalStorage

WORKER = """
import json, sys
from job.settings import from_dict
from job.trainer import limit_threads
from job.worker import Solo, work
limit_threads(1)
rank, size = json.loads(sys.argv[2])
work(from_dict(json.loads(sys.argv[1])), sys.argv[3], Solo(rank, size), print)
"""


def train(config: settings.Settings, workers: int, folder: Path, cache: Path) -> dict[int, checkpoint.State]:
    """Trains and returns the state after each epoch, by the number of the epoch."""
    storage = LocalStorage(folder)
    scans = catalog.build(config.data, config.training.seed).scans
    storage.write("manifest.jsonl", to_lines(scans))
    steps = Order(sum(s.split == "train" for s in scans), config.training.batch_size, 0).steps
    held = config.to_dict()
    held["cluster"] |= {"workers": workers, "checkpoint_every_steps": steps}
    processes = team.start(
        lambda rank: [sys.executable, "-c", WORKER, json.dumps(held), json.dumps([rank, workers]), storage.url],
        workers,
        {"COVID_CT_CACHE": str(cache)},
    )
    states: dict[int, checkpoint.State] = {}
    try:
        while any(process.poll() is None for process in processes):
            _take(storage, steps, states)
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
    _take(storage, steps, states)
    if any(process.returncode for process in processes):
        raise SystemExit(f"a worker of {workers} failed")
    return states


def _take(storage: LocalStorage, steps: int, states: dict[int, checkpoint.State]) -> None:
    for name in storage.bundles(checkpoint.FOLDER):
        epoch = int(name.removeprefix("step-")) // steps
        if epoch not in states:
            states[epoch] = checkpoint.load(storage, name)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    counts = [int(count) for count in args.workers.split(",")]
    config = settings.load(None, [f"data.root={args.root}", f"training.epochs={args.epochs}", *args.set])
    with tempfile.TemporaryDirectory() as folder:
        found = {count: train(config, count, Path(folder, str(count)), Path(folder, "cache")) for count in counts}
    one = found[counts[0]]
    print("| epoch | " + " | ".join(f"{count} workers: largest, median" for count in counts[1:]) + " |")
    print("|---" * len(counts) + "|")
    for epoch in sorted(one):
        cells = []
        for count in counts[1:]:
            pairs = zip(one[epoch].weights, found[count][epoch].weights, strict=True)
            apart = np.concatenate([np.abs(a - b).ravel() for a, b in pairs])
            cells.append(f"{apart.max():.1e}, {np.median(apart):.1e}")
        print(f"| {epoch} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
