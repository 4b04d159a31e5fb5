"""Ray Train's trainer, without the helpers that this job, or a cluster of its own, has no use for.

Each helper is a process that imports Ray, 1 to 2 s of processor time before the first step, and then wakes a hundred
times a second beside training.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class RayTrainer(DataParallelTrainer):  # type: ignore[misc]  # Ray has no types
    """`DataParallelTrainer`, for scans that come from `job.generator` and not from Ray Data.

    On a cluster that is the job's `own`, and ends with it, nobody clears up after a driver that is gone, and no
    autoscaler is asked for machines.
    """

    def __init__(self, *args: Any, own: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own = own

    def _create_default_callbacks(self) -> list[Any]:
        useless = (DatasetsCallback, PlacementGroupCleanerCallback) if self._own else (DatasetsCallback,)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, useless)]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        if self._own and type(given["scaling_policy"]) is FixedScalingPolicy:
            given["scaling_policy"] = _Alone(self.scaling_config)
        return super()._initialize_and_run_controller(**given)

    def _register_sigint_handler(self, _controller: Any) -> None:
        """Ctrl-C interrupts this process as it does any other. Ray's handler would stay for good: after training it
        calls a controller that is gone, and may start a new cluster for that."""


class _Alone(FixedScalingPolicy):  # type: ignore[misc]  # Ray has no types
    """As many workers as are wanted, on the machine that is there."""

    def _send_resource_request(self) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...

    def _cancel_resource_request(self) -> None: ...
