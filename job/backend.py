"""How Ray Train tells its workers of each other: TF_CONFIG, which the distribution strategy reads."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig


@dataclass
class StrategyConfig(BackendConfig):  # type: ignore[misc]  # Ray has no types
    """In place of `ray.train.tensorflow.TensorflowConfig`, whose package imports TensorFlow wherever it is named: in
    the driver and in the controller, before any worker is started. It would also ask for Keras 2."""

    @property
    def backend_cls(self) -> type[Backend]:
        """See `BackendConfig`."""
        return _StrategyBackend


class _StrategyBackend(Backend):  # type: ignore[misc]  # Ray has no types
    def on_start(self, worker_group: Any, _backend_config: StrategyConfig) -> None:
        """Called by the controller with each new group of workers."""
        import ray

        addresses = worker_group.execute(_address)
        ray.get(
            [
                worker_group.execute_single_async(index, _set_tf_config, addresses, index)
                for index in range(len(worker_group))
            ]
        )


def _address() -> str:
    """Where this worker will listen for the others."""
    host, port = get_address_and_port()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set_tf_config(addresses: list[str], index: int) -> None:
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
