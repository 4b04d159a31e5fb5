"""What it takes to put a step's micro-batches together over more and more workers, all on this machine.

    python -m benchmarks.gather [--workers 1,2,4,8] [--scans 32,256] [--repeats 50]

Workers without anything else to do, one thread each, gather what `job.trainer` gathers in a float32 step of the default
network, over loopback. On fewer processors than workers the time is an upper bound.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time

from benchmarks import team
from benchmarks.machine import weights
from job.limits import MICRO_BATCH
from job.settings import Model


def sizes() -> tuple[int, int]:
    """Floats of a micro-batch: of the trunk's gradients, and of the features with label, weight and seed."""
    model, size = Model(), MICRO_BATCH["float32"]
    head = weights() - weights_of_trunk(model)
    features = (head - 2 * model.dense - 1) // model.dense
    return weights_of_trunk(model), size * (features + 4)


def weights_of_trunk(model: Model) -> int:
    """Weights of the convolutions."""
    channels = [3, *model.filters]
    pairs = itertools.pairwise(channels)
    return sum((model.kernel_size**2 * before + 1) * after for before, after in pairs)


def worker(workers: int, scans: int, repeats: int) -> None:
    """Gathers again and again; the first worker prints the median in seconds."""
    import tensorflow as tf

    from job.gather import gather
    from job.trainer import limit_threads, make_strategy

    limit_threads(1)
    strategy = make_strategy(gpu=False, timeout=60.0)
    number = scans // MICRO_BATCH["float32"]
    held = [[tf.ones(size) for size in sizes()]] * -(-number // workers)

    @tf.function
    def together() -> list[tf.Tensor]:
        return strategy.run(lambda: gather(held, tf.constant(number)))

    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        together()
        spent.append(time.perf_counter() - began)
    if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
        print(statistics.median(spent[5:]))


def measure(workers: int, scans: int, repeats: int) -> float:
    """Median seconds over so many processes."""
    numbers = [str(number) for number in (workers, scans, repeats)]
    processes = team.start(lambda _: [sys.executable, "-m", "benchmarks.gather", "--worker", *numbers], workers)
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a worker failed")
    return float(said[0].split()[-1])


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--scans", default="32,256")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--worker", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(*args.worker)
        return
    print("| scans in a batch | MB | workers | ms |\n|---|---|---|---|")
    for scans in map(int, args.scans.split(",")):
        megabytes = sum(sizes()) * 4 * scans / MICRO_BATCH["float32"] / 1e6
        for workers in map(int, args.workers.split(",")):
            seconds = measure(workers, scans, args.repeats)
            print(f"| {scans} | {megabytes:.2f} | {workers} | {seconds * 1e3:.1f} |", flush=True)


if __name__ == "__main__":
    main()
