"""The Ray cluster a job runs on: the one it was submitted to, the one in `RAY_ADDRESS`, or a local one of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from job.console import say
from job.errors import UserError
from job.settings import Cluster
from job.signals import held_back

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
_LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Two processes that Ray starts for tasks to come: Ray Train's actors have environments of their own.
    "RAY_prestart_worker_first_driver": "0",
    # A process that asks whether this machine is about to be taken away.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Unless the user has set them: what a cluster of one's own does not need."""
_LOCAL_OBJECT_STORE = 100 * 1024 * 1024
"""Bytes. Nothing large goes through Ray's object store here; the default would claim a third of the memory."""


@contextmanager
def connect(wanted: Cluster, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Joins or starts a cluster that has what `wanted` asks for, and leaves or stops it at the end.

    While a local one starts, `meanwhile` runs in a thread, for what can fail only later: its errors are not heard of.

    A local cluster uses token authentication with a token of its own, keeps its files in a temporary folder of its
    own, and does not know of any other Ray on the machine.

    Ctrl-C and SIGTERM wait until Ray has started or stopped: meanwhile it may lose them, and it takes SIGTERM for
    itself, which `held_back` gives back.

    Raises:
        UserError: the cluster cannot be reached or is too small.
    """
    with _local(wanted, meanwhile) if is_own() else _joined(os.environ["RAY_ADDRESS"], wanted):
        yield


def is_own() -> bool:
    """Whether the cluster is one that the job starts for itself."""
    return not os.environ.get("RAY_ADDRESS")


@contextmanager
def _joined(address: str, wanted: Cluster) -> Iterator[None]:
    import ray

    try:
        with held_back():
            context = ray.init(
                address=address, log_to_driver=False, logging_level="warning", runtime_env={"env_vars": _QUIET}
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS {address}: cannot join this cluster: {_first_line(error)}") from error
    url = getattr(context, "dashboard_url", None)
    say(f"joined the Ray cluster at {address}" + (f", dashboard http://{url}" if url else ""))
    try:
        check_size(wanted, ray.cluster_resources(), f"the cluster at {address}")
        yield
    finally:
        with held_back():
            ray.shutdown()


@contextmanager
def _local(wanted: Cluster, meanwhile: Callable[[], object]) -> Iterator[None]:
    machine = {"CPU": float(os.cpu_count() or 1)}
    check_size(wanted, machine | ({} if not wanted.gpu else {"GPU": float(_gpus())}), "this machine")
    unset = {name: value for name, value in _LOCAL.items() if name not in os.environ}
    own = {**unset, **_QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    with TemporaryDirectory(prefix="covid-ct-ray-", ignore_cleanup_errors=True) as folder, _environment(own):
        # Only now: Ray reads its authentication mode while it is imported.
        with held_back():
            import ray

        try:
            with held_back(), ThreadPoolExecutor(1) as beside:
                beside.submit(meanwhile)
                ray.init(
                    address="local",
                    num_cpus=os.cpu_count(),
                    include_dashboard=False,
                    object_store_memory=_LOCAL_OBJECT_STORE,
                    log_to_driver=False,
                    logging_level="warning",
                    _temp_dir=folder,
                    _node_ip_address="127.0.0.1",
                )
            yield
        finally:
            with held_back():
                ray.shutdown()


@contextmanager
def _environment(own: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_size(wanted: Cluster, there: dict[str, Any], where: str) -> None:
    """Raises `UserError` unless the resources `there` suffice for the least number of workers that is `wanted`."""
    least = wanted.min_workers or wanted.workers
    needs = {"CPU": least * wanted.cpus_per_worker, "GPU": least if wanted.gpu else 0}
    for kind, needed in needs.items():
        has = int(there.get(kind, 0))
        if needed > has:
            per_worker = wanted.cpus_per_worker if kind == "CPU" else 1
            fit = has // per_worker
            advice = f"set cluster.workers={fit}" if fit else f"it has too few for one worker of {per_worker}"
            raise UserError(
                f"cluster.workers {least} with {per_worker} {kind} each need {needed}, {where} has {has}: {advice}"
            )


def describe_wait(wanted: Cluster) -> str:
    """What the workers that are wanted need, and what the connected cluster has free, in words."""
    import ray

    free = ray.available_resources()
    kinds = ["CPU", "GPU"] if wanted.gpu else ["CPU"]
    has = " and ".join(f"{free.get(kind, 0):g} {kind}s" for kind in kinds)
    each = f"{wanted.cpus_per_worker} CPUs{' and a GPU' if wanted.gpu else ''} each"
    return f"{wanted.workers} workers with {each} are wanted, {has} are free"


@cache
def _token() -> str:
    """The same for every local cluster of this process: Ray reads it once and would offer the first one to all."""
    return secrets.token_hex(32)


def _gpus() -> int:
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    return int(NvidiaGPUAcceleratorManager.get_current_node_num_accelerators())


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
