"""The other workers, as Ray Train knows them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import ray.train
import ray.train.collective
from ray.train.v2.api.report_config import CheckpointUploadMode

from job.checkpoint import FOLDER


class RayTeam:
    """`job.worker.Team` on Ray Train. Reports go out beside training, in order: each waits for Ray's controller."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.size: int = context.get_world_size()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._reports: list[Future[None]] = []

    def agree(self, value: Any) -> Any:
        """See `Team.agree`."""
        return ray.train.collective.broadcast_from_rank_zero(value)

    def report(self, metrics: dict[str, Any], checkpoint_name: str | None = None) -> None:
        """See `Team.report`. The checkpoint stays where `job.checkpoint` wrote it: Ray Train learns its place."""
        checkpoint = None
        if checkpoint_name is not None and self.rank == 0:
            storage = ray.train.get_context().get_storage()
            path = f"{storage.experiment_fs_path}/{FOLDER}/{checkpoint_name}"
            checkpoint = ray.train.Checkpoint(path, storage.storage_filesystem)
        mode = CheckpointUploadMode.NO_UPLOAD
        self._reports.append(
            self._pool.submit(ray.train.report, metrics, checkpoint=checkpoint, checkpoint_upload_mode=mode)
        )

    def __enter__(self) -> RayTeam:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=kind is not None)
        if kind is None:
            for report in self._reports:
                report.result()
