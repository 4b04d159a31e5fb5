"""What checkpoints cost training: the time of a step with a checkpoint every 50, 10, 5 and 1 steps, and with none.

    python benchmarks/checkpoints.py [--rounds 3] [--epochs 3] [--threads N] [--runs FOLDER]

Trains the default network on sample scans in this process, one run of each kind per round, and prints a Markdown table
of medians over rounds and epochs. The first epoch of a run, which compiles, does not count. Checkpoints go to FOLDER,
which may be s3://. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

NEVER = 10**9
EVERY = (NEVER, 50, 10, 5, 1)
PER_CLASS = 300


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="that count")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs")
    args = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from job.trainer import limit_threads

    limit_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="covid-ct-") as folder:
        os.environ["COVID_CT_CACHE"] = f"{folder}/cache"
        measure(Path(folder), args.runs or f"{folder}/runs", args.rounds, args.epochs)


def measure(folder: Path, runs: str, rounds: int, epochs: int) -> None:
    """Trains all runs and prints what was measured."""
    from job import catalog, checkpoint, sample, settings
    from job.scan import to_lines
    from job.storage import LocalStorage, open_storage
    from job.worker import Solo, work

    storage = LocalStorage(folder / "scans")
    for drawing in sample.draw(PER_CLASS, seed=0):
        storage.write(drawing.path, drawing.data)
    overrides = [f"data.root={folder}/scans", f"training.epochs={epochs + 1}"]
    scans = catalog.build(settings.load(None, overrides).data, 0).scans
    trained = sum(scan.split == "train" for scan in scans)
    steps = -(-trained // 32)
    milliseconds: dict[int, list[float]] = {every: [] for every in EVERY}
    size = 0
    for turn in range(rounds):
        for every in EVERY:
            run = open_storage(f"{runs}/{turn}-{every}")
            run.write("manifest.jsonl", to_lines(scans))
            config = settings.load(None, [*overrides, f"cluster.checkpoint_every_steps={every}"])
            work(config, run.url, Solo(), lambda line: sys.exit(line))
            lines = [json.loads(line) for line in run.read("metrics.jsonl").splitlines()]
            milliseconds[every] += [1000 * trained / line["images_per_second"] / steps for line in lines[1:]]
            newest = run.bundles(checkpoint.FOLDER)[-1]
            size = sum(about.size for about in run.manifest(f"{checkpoint.FOLDER}/{newest}").files.values())
            run.delete(checkpoint.FOLDER)
    without = statistics.median(milliseconds[NEVER])
    low, _, high = statistics.quantiles(milliseconds[NEVER], n=4)
    print(f"{rounds} rounds of {epochs} epochs of {steps} steps; a checkpoint has {size / 1e6:.1f} MB\n")
    print("| checkpoint every | ms per step (least to most) | a checkpoint costs, in steps |\n|---|---|---|")
    for every, values in milliseconds.items():
        median = statistics.median(values)
        # Plus or minus half of the range that holds the middle half of the steps without checkpoints.
        cost = f"{(median / without - 1) * every:.2f} ± {(high - low) / 2 / without * every:.2f}"
        name, cost = ("none", "") if every == NEVER else (f"{every} steps", cost)
        print(f"| {name} | {median:.1f} ({min(values):.1f} to {max(values):.1f}) | {cost} |")


if __name__ == "__main__":
    main()
