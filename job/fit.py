"""Training as a Ray Train job: what each worker runs, how failures are met, and how progress reaches the driver."""

from __future__ import annotations

import os
from typing import Any

from job.settings import Settings, from_dict
from job.storage import Storage

_CONTROLLER_POLL_SECONDS = "0.2"
"""Ray Train looks at its workers this often; its default of 2 s is what a short run would mostly wait for."""


def fit(settings: Settings, run: Storage) -> dict[str, Any]:
    """Trains the run to its end on the connected Ray cluster and returns the last metrics that were reported."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _CONTROLLER_POLL_SECONDS)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    cluster = settings.cluster
    resources = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if cluster.gpu else {})
    trainer = TensorflowTrainer(
        _loop,
        train_loop_config={"settings": settings.to_dict(), "run": run.url},
        scaling_config=ScalingConfig(num_workers=cluster.workers, use_gpu=cluster.gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name="ray",
            storage_path=run.url,
            failure_config=FailureConfig(max_failures=cluster.max_failures),
        ),
    )
    result = trainer.fit()
    return dict(result.metrics or {})


def _loop(config: dict[str, Any]) -> None:
    """Runs in every worker; imports TensorFlow there and nowhere else."""
    # Ray Train asks for Keras 2, which this job does not use.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    from job.ray_team import RayTeam
    from job.worker import work

    with RayTeam() as team:
        work(from_dict(config["settings"]), config["run"], team, print)
