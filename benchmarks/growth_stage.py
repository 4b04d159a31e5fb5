"""One stage of `benchmarks.growth`, in a process of its own: prints what it took as one line of JSON."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from job import catalog, run, settings
from job.scan import to_lines
from job.storage import open_storage
from job.versions import peak_memory

SIDE = 64
PER_GROUP = 10
PER_TASK = 500


def draw(folder: Path, scans: int) -> dict[str, Any]:
    """Scans below `folder/data`: soft noise, half of them of each class, ten to a patient."""
    began = time.perf_counter()
    for name in ("CT_COVID", "CT_NonCOVID"):
        (folder / "data" / name).mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        starts = range(0, scans, PER_TASK)
        size = sum(pool.map(_draw_some, [folder] * len(starts), starts, [min(s + PER_TASK, scans) for s in starts]))
    return {"seconds": time.perf_counter() - began, "bytes": size}


def _draw_some(folder: Path, first: int, end: int) -> int:
    random, size = np.random.default_rng(first), 0
    for index in range(first, end):
        name = ("CT_COVID", "CT_NonCOVID")[index % 2]
        coarse = Image.fromarray(random.integers(0, 256, (8, 8), np.uint8))
        stored = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stored, "PNG", compress_level=1)
        content = stored.getvalue()
        (folder / "data" / name / f"{index // 2 // PER_GROUP:06}%{index // 2 % PER_GROUP}.png").write_bytes(content)
        size += len(content)
    return size


def make_catalog(folder: Path) -> dict[str, Any]:
    """The catalog, as the job's driver makes it, and its manifest."""
    began = time.perf_counter()
    wanted = _settings(folder)
    found = catalog.build(wanted.data, wanted.training.seed)
    lines = to_lines(found.scans)
    open_storage(str(folder / "run")).write(run.MANIFEST, lines)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "peak_memory": peak_memory(),
        "manifest_bytes": len(lines),
        "train": len(found.part("train")),
    }


def work(folder: Path, stage: str, rank: int, workers: int) -> dict[str, Any]:
    """One worker: fills its cache, or goes through an epoch of its share."""
    import tensorflow as tf

    from job.trainer import Trainer, limit_threads
    from job.worker import make_batches

    limit_threads(1)
    tf.constant(0)  # starts TensorFlow, whose own memory is no matter here
    before = peak_memory()
    began = time.perf_counter()
    wanted = _settings(folder)
    batches = make_batches(wanted, open_storage(str(folder / "run")), rank, workers)["train"]
    ready = time.perf_counter() - began
    held = {"base_memory": before, "ready_memory": peak_memory()}
    if stage == "fill":
        folder = Path(os.environ["COVID_CT_CACHE"])
        files = [path.stat().st_size for path in folder.glob("rgb-*/*/*.rgb")]
        return {"seconds": ready, "peak_memory": peak_memory(), "files": len(files), "bytes": sum(files), **held}
    trainer, waited = Trainer(wanted, tf.distribute.get_strategy()), 0.0
    totals, began = tf.zeros(3, tf.float64), time.perf_counter()
    stream = batches.epochs(0, 1)
    for step in range(batches.order.steps):
        asked = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - asked
        totals = trainer.train_step(totals, batch, tf.constant(batches.order.count(step), tf.float32))
    return {"seconds": time.perf_counter() - began, "waited": waited, "peak_memory": peak_memory(), **held}


def all_workers(folder: Path, stage: str, workers: int) -> list[dict[str, Any]]:
    """Every worker in a process of its own, at the same time, each with its own cache."""

    def start(rank: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.growth_stage", stage, "--folder", str(folder)]
        command += ["--workers", str(workers), "--rank", str(rank)]
        environment = os.environ | {"COVID_CT_CACHE": str(folder / f"cache-{rank}"), "TF_CPP_MIN_LOG_LEVEL": "2"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    started = [start(rank) for rank in range(workers)]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit("a worker failed")
    return [json.loads(each.splitlines()[-1]) for each in said]


def _settings(folder: Path) -> settings.Settings:
    tiny = ["model.filters=[1]", "model.pool_size=32", "model.dense=1"]
    return settings.load(None, [f"data.root={folder / 'data'}", "data.per_class=null", *tiny])


def main() -> None:
    """One stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("draw", "catalog", "fill", "epoch"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scans", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--rank", type=int, help="this worker; without it all are started")
    args = parser.parse_args()
    if args.stage == "draw":
        said: Any = draw(args.folder, args.scans)
    elif args.stage == "catalog":
        os.environ["COVID_CT_CACHE"] = str(args.folder / "driver")
        said = make_catalog(args.folder)
    elif args.rank is None:
        said = all_workers(args.folder, args.stage, args.workers)
    else:
        said = work(args.folder, args.stage, args.rank, args.workers)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
