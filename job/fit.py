"""Training as a Ray Train job: what each worker runs, and how its failures reach the user."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import Any

from job.arrow import pyarrow_filesystem
from job.errors import UserError
from job.settings import Cluster, Settings, from_dict
from job.storage import Storage, absolute

_CONTROLLER_POLL_SECONDS = "0.2"
"""Ray Train looks at its workers this often; its default of 2 s is what a short run would mostly wait for."""


def fit(settings: Settings, run: Storage) -> dict[str, Any]:
    """Trains the run to its end on the connected Ray cluster and returns the last metrics that were reported.

    Raises:
        UserError: the workers failed more often than `cluster.max_failures` allows.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _CONTROLLER_POLL_SECONDS)
    from ray.train import FailureConfig, RunConfig
    from ray.train.tensorflow import TensorflowTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    # Ray Train's workers work in folders of their own.
    url = absolute(run.url)
    there = replace(settings, data=replace(settings.data, root=absolute(settings.data.root)))
    filesystem, path = pyarrow_filesystem(url)
    storage_path, _, name = path.rpartition("/")
    trainer = TensorflowTrainer(
        _loop,
        train_loop_config={"settings": there.to_dict(), "run": url},
        scaling_config=_scaling(settings.cluster),
        # Ray Train's own storage is the run's folder, so that its result points at the run's checkpoints.
        run_config=RunConfig(
            name=name,
            storage_path=storage_path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=settings.cluster.max_failures),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise UserError(_explain(error, settings.cluster.max_failures)) from error
    return dict(result.metrics or {})


def _scaling(cluster: Cluster) -> Any:
    from ray.train import ScalingConfig

    resources = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if cluster.gpu else {})
    workers = cluster.workers if cluster.min_workers is None else (cluster.min_workers, cluster.workers)
    return ScalingConfig(num_workers=workers, use_gpu=cluster.gpu, resources_per_worker=resources)


def _loop(config: dict[str, Any]) -> None:
    """Runs in every worker; imports TensorFlow there and nowhere else."""
    # Ray Train asks for Keras 2, which this job does not use.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    from job.ray_team import RayTeam
    from job.trainer import limit_threads
    from job.worker import work

    settings = from_dict(config["settings"])
    limit_threads(settings.cluster.cpus_per_worker)
    with RayTeam() as team:
        work(settings, config["run"], team, print)


def _explain(error: Exception, max_failures: int) -> str:
    """One line: what a worker said last; whatever else is known goes to a file that the line names."""
    failures = getattr(error, "worker_failures", None) or {-1: getattr(error, "controller_failure", error)}
    causes = [getattr(failure, "_base_exc", failure) for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, UserError):
            return str(cause)
    with tempfile.NamedTemporaryFile("w", prefix="covid-ct-error-", suffix=".log", delete=False) as log:
        log.write(str(error))
    lines = str(causes[0]).strip().splitlines() or [type(causes[0]).__name__]
    where = "the training controller" if -1 in failures else f"worker {next(iter(failures))}"
    return f"{where} failed for good after {max_failures} restarts: {lines[-1]} (all that is known: {log.name})"
