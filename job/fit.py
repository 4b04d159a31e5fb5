"""Training as a Ray Train job: what each worker runs, and how its failures reach the user."""

from __future__ import annotations

import importlib
import os
import tempfile
from dataclasses import replace
from typing import Any

from job.arrow import pyarrow_filesystem
from job.cluster import is_own
from job.errors import UserError
from job.notices import Board
from job.settings import Cluster, Settings, from_dict
from job.storage import Storage, absolute

_CONTROLLER_POLL_SECONDS = "0.2"
"""Ray Train looks at its workers this often; its default of 2 s is what a short run would mostly wait for."""

_LEAST_HEALTH_SECONDS = 30
"""Of silence before Ray Train takes a worker for dead: importing TensorFlow on a busy machine can silence one."""

_RESIZE_SECONDS = 10.0
"""Ray Train looks this often for room for more workers; Ray's own view of the machines is up to 20 s old."""

_ROOM_SECONDS = "10"
"""Workers that were to start on a machine that has just gone are given up after this; they cost no failure."""


def import_ray_train() -> None:
    """Imports what `fit` will need; 1 to 2 s."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _CONTROLLER_POLL_SECONDS)
    for name in ("job.ray_trainer", "job.attempts", "job.backend"):
        importlib.import_module(name)


def fit(settings: Settings, run: Storage, board: Board) -> dict[str, Any]:
    """Trains the run to its end on the connected Ray cluster and returns the last metrics that were reported.

    What the user should know meanwhile is left on the `board`.

    Raises:
        UserError: the workers failed more often than `cluster.max_failures` allows.
    """
    cluster = settings.cluster
    import_ray_train()
    silence = max(cluster.collective_timeout, _LEAST_HEALTH_SECONDS)
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(silence))
    if cluster.min_workers is not None:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _ROOM_SECONDS)
    from ray.train import FailureConfig, RunConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from job.attempts import Attempts
    from job.backend import StrategyConfig
    from job.ray_trainer import RayTrainer

    # Ray Train's workers work in folders of their own.
    url = absolute(run.url)
    there = replace(settings, data=replace(settings.data, root=absolute(settings.data.root)))
    filesystem, path = pyarrow_filesystem(url)
    storage_path, _, name = path.rpartition("/")
    trainer = RayTrainer(
        _loop,
        own=is_own(),
        backend_config=StrategyConfig(),
        train_loop_config={"settings": there.to_dict(), "run": url, "board": board},
        scaling_config=_scaling(cluster),
        # Ray Train's own storage is the run's folder, so that its result points at the run's checkpoints.
        run_config=RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            callbacks=[Attempts(board, url, cluster)],
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise UserError(_explain(error, cluster.max_failures, board.conclusion())) from error
    return dict(result.metrics or {})


def _scaling(cluster: Cluster) -> Any:
    from ray.train import ScalingConfig

    resources = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if cluster.gpu else {})
    workers = cluster.workers if cluster.min_workers is None else (cluster.min_workers, cluster.workers)
    return ScalingConfig(
        num_workers=workers,
        use_gpu=cluster.gpu,
        resources_per_worker=resources,
        elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
    )


def _loop(config: dict[str, Any]) -> None:
    """Runs in every worker; imports TensorFlow there and nowhere else."""
    from job.imports import import_tensorflow

    import_tensorflow()
    from job.ray_team import RayTeam
    from job.trainer import limit_threads
    from job.worker import work

    settings = from_dict(config["settings"])
    limit_threads(settings.cluster.cpus_per_worker)
    with RayTeam() as team:
        work(settings, config["run"], team, config["board"].say)


def _explain(error: Exception, max_failures: int, reason: str | None) -> str:
    """One line: `reason`, or what a worker said last; all else that is known goes to a file that the line names."""
    failures = getattr(error, "worker_failures", None) or {-1: getattr(error, "controller_failure", error)}
    causes = [getattr(failure, "_base_exc", failure) for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
    with tempfile.NamedTemporaryFile("w", prefix="covid-ct-error-", suffix=".log", delete=False) as log:
        log.write(str(error))
    if reason is None:
        lines = str(causes[0]).strip().splitlines() or [type(causes[0]).__name__]
        reason = f"the training controller failed: {lines[-1]}"
    return f"{reason}; given up after {max_failures} restarts (all that is known: {log.name})"
