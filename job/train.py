"""The whole job in one screen: catalog, training, evaluation, export, report. Each phase leaves files in the run's
folder, and a run that was stopped goes on with the first phase that is not done."""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from job import catalog, checkpoint, run, versions
from job.cluster import connect, describe_wait
from job.console import say
from job.errors import UserError
from job.fit import fit, import_ray_train
from job.lock import turn
from job.notices import Board
from job.progress import Progress
from job.quality_gate import check_gate_keys
from job.scan import to_lines
from job.settings import Settings
from job.storage import Storage


def train(settings: Settings, name: str) -> dict[str, Any]:
    """Does what is not done of the run `name` and returns its summary. Raises `UserError`."""
    folder = run.open_run(settings.runs, name)
    finished = run.summary(folder)
    if finished is not None:
        say(f"run {name} is finished already; another --run NAME starts a new one")
        return finished
    check_gate_keys(settings.export.quality_gate or {})
    with turn(folder, name):
        return _work(settings, folder, name)


def _work(settings: Settings, folder: Storage, name: str) -> dict[str, Any]:
    """The phases of an unfinished run whose turn this is."""
    began = time.time()
    run.claim(folder, settings)
    # Nobody else writes checkpoints while it is our turn: whatever is half there was left by the dead.
    folder.sweep(checkpoint.FOLDER)
    seconds: dict[str, float] = {}

    with _phase(seconds, "catalog"):
        notices = _catalog(settings, folder)
    # The cluster is left when there is a version: leaving a local one takes 2 s.
    with ExitStack() as cluster:
        with _phase(seconds, "training"):
            worker_memory = _train(settings, folder, name, cluster)
        with _phase(seconds, "evaluation"):
            from job.finish import evaluate_run, export_run

            evaluation, model = evaluate_run(settings, folder)
        with _phase(seconds, "export"):
            version = export_run(settings, folder, name, model, evaluation)
    summary = {
        "run": name,
        "notices": notices,
        "exported": version,
        "figures": evaluation["metrics"],
        "threshold": evaluation["threshold"],
        "manifest_sha256": hashlib.sha256(folder.read(run.MANIFEST)).hexdigest(),
        "versions": versions.versions(),
        "git_commit": versions.git_commit(),
        # Of this process and of worker 0; null where training had been finished before.
        "peak_memory_bytes": {"driver": versions.peak_memory(), "worker_0": worker_memory},
        "seconds": seconds,
    }
    with _phase(seconds, "report"):
        from job.report.build import build_report

        folder.write(run.REPORT, build_report(settings, folder, name, model, evaluation, summary).encode())
    seconds["total"] = round(time.time() - began, 3)
    folder.write(run.SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False).encode())
    return summary


def _catalog(settings: Settings, folder: Storage) -> list[str]:
    """Makes the manifest unless an earlier try has; returns what a reader of the report should know."""
    if (known := run.manifest(folder)) is not None:
        say(f"catalog: {len(known)} scans, as before")
        return list(json.loads(folder.read(run.NOTICES)))
    found = catalog.build(settings.data, settings.training.seed)
    for notice in found.notices:
        say(notice)
    counts = ", ".join(f"{len(found.part(part))} {part}" for part in ("train", "val", "test"))
    say(f"catalog: {len(found.scans)} scans of {len({scan.group for scan in found.scans})} groups: {counts}")
    folder.write(run.NOTICES, json.dumps(found.notices, ensure_ascii=False).encode())
    folder.write(run.MANIFEST, to_lines(found.scans))
    return list(found.notices)


def _train(settings: Settings, folder: Storage, name: str, joined: ExitStack) -> int | None:
    """Trains to the end, unless the last checkpoint is there; the peak memory of worker 0 in bytes.

    The Ray cluster is left with the stack `joined`.
    """
    if checkpoint.finished(folder, settings.training.epochs):
        say("training: finished before")
        return None
    cluster, board = settings.cluster, Board()
    least = f"{cluster.min_workers} to " if cluster.min_workers is not None else ""
    say(
        f"training: run {name}, {settings.training.epochs} epochs on {least}{cluster.workers} worker(s) with "
        f"{cluster.cpus_per_worker} CPU(s){' and a GPU' if cluster.gpu else ''} each"
    )
    joined.enter_context(connect(cluster, meanwhile=import_ray_train))
    with (
        Progress(folder, settings.training.epochs, lambda: describe_wait(cluster), board.take),
        ThreadPoolExecutor(1) as beside,
    ):
        # The evaluation will need TensorFlow: it is imported here while the workers start.
        beside.submit(importlib.import_module, "tensorflow")
        reported = fit(settings, folder, board)
    if not checkpoint.finished(folder, settings.training.epochs):
        raise UserError(
            f"{folder.url}: the workers' last checkpoint is not here; runs must be a folder all machines share"
        )
    return reported.get("peak_memory_bytes")


@contextmanager
def _phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 3)
