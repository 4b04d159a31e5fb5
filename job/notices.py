"""Lines for the user, from wherever the job runs to its driver, through the key-value store of every Ray cluster.

What workers print stays in Ray's logs, and the run's folder may be just what is broken (a full disk).
"""

from __future__ import annotations

import time
import uuid

_NAMESPACE = "covid-ct"


class Board:
    """Where lines are left and taken. It can be sent to other processes, which then share it."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex

    def say(self, line: str) -> None:
        """Leaves a line. Never raises: what is worth saying is not worth failing for."""
        print(line, flush=True)  # to Ray's logs, as a second place to look
        self._put(f"{self._name}-line-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}", line)

    def conclude(self, reason: str) -> None:
        """Leaves the reason why the job ends. Never raises."""
        self._put(f"{self._name}-reason", reason)

    def take(self) -> list[str]:
        """The lines that were left since the last time, oldest first."""
        return self._take(f"{self._name}-line-")

    def conclusion(self) -> str | None:
        """The reason why the job ended, if it was left."""
        return next(iter(self._take(f"{self._name}-reason")), None)

    def _put(self, key: str, line: str) -> None:
        from ray.exceptions import RayError
        from ray.experimental.internal_kv import _internal_kv_put

        try:
            _internal_kv_put(key, line, namespace=_NAMESPACE)
        except RayError as error:
            print(f"the driver could not be told: {error}", flush=True)

    def _take(self, prefix: str) -> list[str]:
        from ray.exceptions import RayError
        from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list

        lines = []
        try:
            for key in sorted(_internal_kv_list(prefix, namespace=_NAMESPACE)):
                lines.append(_internal_kv_get(key, namespace=_NAMESPACE).decode())
                _internal_kv_del(key, namespace=_NAMESPACE)
        except RayError:
            pass  # a cluster that does not answer any more: the job's own failure tells why
        return lines
