"""What Ray Train's controller sees of the workers, told to the user: who failed or did not answer, how many go on.

Ray Train calls this in its controller: see `ray.train.v2._internal.execution.callback`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from job.checkpoint import FOLDER
from job.errors import UserError
from job.notices import Board
from job.reason import Condition, Place, is_echo, reason_of
from job.settings import Cluster
from job.storage import open_storage

_ANSWER_SECONDS = 3.0
"""A worker whose process does not answer for this long, while others fail, is taken for the reason."""

_CHECKPOINT_SECONDS = 60.0
"""How long a change to more workers waits for the next checkpoint, which makes it cost no steps."""

_STARTS = 3
_LEAST_START_SECONDS = 120.0
"""Workers have as many times `cluster.collective_timeout` to be started, and at least these seconds."""


class Attempts(WorkerGroupCallback, ControllerCallback):  # type: ignore[misc]  # Ray has no types
    """Follows each group of workers from its start to its end."""

    def __init__(self, board: Board, run_url: str, wanted: Cluster) -> None:
        self._board, self._run_url, self._wanted = board, run_url, wanted
        self._workers: dict[int, Any] = {}  # of the group that trains, empty once it has failed
        self._places: dict[int, Place] = {}
        self._groups = self._failures = 0
        self._reason: str | None = None
        self._starting: threading.Timer | None = None

    def before_worker_group_start(self, _worker_group_context: Any) -> None:
        """Ray waits without end for a worker that hangs while it is started: this ends that wait."""
        self._stop_waiting()
        limit = max(_LEAST_START_SECONDS, _STARTS * self._wanted.collective_timeout)
        self._starting = threading.Timer(limit, self._give_up_start, [limit])
        self._starting.daemon = True
        self._starting.start()

    def after_worker_group_training_start(self, _worker_group: Any) -> None:
        """All workers train, or prepare for it: from here on they are polled."""
        self._stop_waiting()

    def after_worker_group_start(self, worker_group: Any) -> None:
        """All workers have their processes."""
        self._workers = {worker.distributed_context.world_rank: worker for worker in worker_group.get_workers()}
        self._places = {
            rank: Place(rank, worker.metadata.pid, worker.metadata.node_ip) for rank, worker in self._workers.items()
        }
        self._groups += 1
        there, wanted = len(self._workers), self._wanted.workers
        if self._groups > 1:
            self._board.say(f"training goes on from its newest checkpoint with {there} of {wanted} worker(s)")
        elif there < wanted:
            self._board.say(f"training starts with {there} of {wanted} workers")

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Finds the reason as soon as a worker has failed, while those that have not can still be asked."""
        errors: dict[int, Exception] = worker_group_status.errors
        if not errors or self._reason is not None:
            return
        failed, waited, others = dict[int, str](), dict[int, str](), dict[int, Condition]()
        for rank, error in errors.items():
            cause = getattr(error, "health_check_failure", error)
            if isinstance(cause, RayActorError):
                others[rank] = "silent" if isinstance(cause, ActorUnavailableError) else "lost"
            elif isinstance(error, WorkerHealthCheckTimeoutError):
                others[rank] = "silent"
            else:
                (waited if is_echo(error) else failed)[rank] = _last_line(error)
        quiet = sorted(self._workers.keys() - errors.keys())
        with ThreadPoolExecutor(max(1, len(quiet))) as pool:
            found = pool.map(self._ask, quiet)
        for rank, condition in zip(quiet, found, strict=True):
            if condition is not None:
                others[rank] = condition
        said = next((str(error) for error in errors.values() if isinstance(error, UserError)), None)
        self._reason = said or reason_of(failed, waited, others, self._places)

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Says what failed and what happens now."""
        reason, self._reason = self._reason, None
        self._workers = {}
        if reason is None:
            return  # workers that could not be started are tried again; `job.progress` tells of the wait
        self._failures += 1
        if failure_decision.value == "RETRY":
            limit = self._wanted.max_failures
            self._board.say(f"{reason}; all workers start anew (failure {self._failures} of at most {limit})")
        else:
            self._board.conclude(reason)

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Lets running workers reach a checkpoint before they are stopped to go on as more."""
        if not self._workers:
            return
        now, self._workers = len(self._workers), {}
        self._board.say(
            f"the cluster has room for {resize_decision.num_workers} workers instead of {now}: "
            "they start after the next checkpoint"
        )
        try:
            run = open_storage(self._run_url)
            before, deadline = run.bundles(FOLDER)[-1:], time.monotonic() + _CHECKPOINT_SECONDS
            while run.bundles(FOLDER)[-1:] == before and time.monotonic() < deadline:
                time.sleep(0.2)
        except UserError:
            return  # storage that is away: what the workers make of it decides

    def _stop_waiting(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    def _give_up_start(self, limit: float) -> None:
        """Ends the processes that are being started, by the resources they were given; Ray Train then starts anew."""
        job = ray.get_runtime_context().get_job_id()
        # This job has no other placement groups; the last bytes of an id are the job's.
        held = [
            group
            for group, about in placement_group_table().items()
            if group.endswith(job) and about["state"] == "CREATED"
        ]
        if held:
            self._board.say(f"a worker has not started within {limit:.0f} s: all workers start anew")
        for group in held:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))

    def _ask(self, rank: int) -> Condition | None:
        """How a worker is that has not failed so far; None if it has failed now, a little after the others."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        condition: Condition = "silent"
        while (left := deadline - time.monotonic()) > 0:
            try:
                status = ray.get(self._workers[rank].actor.poll_status.remote(), timeout=left)
            except (GetTimeoutError, ActorUnavailableError):
                condition = "silent"  # so far: Ray may learn a moment later that it is lost
            except RayActorError:
                return "lost"
            except RayError:
                return None  # it answers, if only with an error of its own
            else:
                if status.error is not None:
                    return None
                condition = "absent"
            time.sleep(0.1)
        return condition


def _last_line(error: Exception) -> str:
    """What an error says last, but for the place in TensorFlow's graph."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("[[")), type(error).__name__)
