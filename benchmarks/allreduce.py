"""What it takes to sum the gradients over more and more workers: TensorFlow's ring, all workers on this machine.

    python -m benchmarks.allreduce [--workers 1,2,4,8] [--repeats 50]

Workers without anything else to do, one thread each, sum as many floats as the network has weights, over loopback.
A ring of W takes 2 (W - 1) turns one after the other, whatever the amount: the time per turn is what grows into the
time of hundreds of workers. On fewer processors than workers that time is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time

from benchmarks import team
from benchmarks.machine import weights


def worker(repeats: int) -> None:
    """Sums again and again; the first worker prints the median in seconds."""
    import tensorflow as tf

    from job.trainer import limit_threads, make_strategy

    limit_threads(1)
    strategy = make_strategy(gpu=False, timeout=60.0)
    held = tf.ones(weights())

    @tf.function
    def total() -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(lambda: held), axis=None)

    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        total()
        spent.append(time.perf_counter() - began)
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
        print(statistics.median(spent[5:]))


def measure(workers: int, repeats: int) -> float:
    """Median seconds of one sum over so many processes."""
    command = [sys.executable, "-m", "benchmarks.allreduce", "--worker", "--repeats", str(repeats)]
    processes = team.start(lambda _: command, workers)
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a worker failed")
    return float(said[0].split()[-1])


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.repeats)
        return
    print(f"{weights():,} floats, {weights() * 4 / 1e6:.2f} MB\n\n| workers | a sum, ms | a turn, ms |\n|---|---|---|")
    for workers in map(int, args.workers.split(",")):
        seconds = measure(workers, args.repeats)
        turn = f"{seconds / (2 * (workers - 1)) * 1e3:.2f}" if workers > 1 else ""
        print(f"| {workers} | {seconds * 1e3:.1f} | {turn} |", flush=True)


if __name__ == "__main__":
    main()
