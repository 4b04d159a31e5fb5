"""A bounded queue before a bounded pool: what does not fit is refused at once instead of growing in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from serving.errors import Code, ServingError

T = TypeVar("T")


class Workers:
    """Threads that answer requests.

    At most `queue` requests are under way or waiting, and the bodies of all of them together have at most `memory`
    bytes. A request counts from its first byte until its answer is there, even if its client has gone away.
    """

    def __init__(self, threads: int, queue: int, memory: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._lock = threading.Lock()
        self._free_places = queue
        self._free_bytes = memory

    def ticket(self) -> Ticket:
        """A place in the queue. Raises `ServingError` RESOURCE_EXHAUSTED if there is none."""
        with self._lock:
            if self._free_places == 0:
                raise ServingError(Code.RESOURCE_EXHAUSTED, "too many requests under way; try again later")
            self._free_places -= 1
        return Ticket(self)

    def _take(self, count: int) -> None:
        with self._lock:
            if count > self._free_bytes:
                raise ServingError(Code.RESOURCE_EXHAUSTED, "too many bytes of requests under way; try again later")
            self._free_bytes -= count

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._free_bytes += count
            self._free_places += 1

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        return self._pool.submit(work)

    def close(self) -> None:
        """Waits for what is under way."""
        self._pool.shutdown()


class Ticket:
    """One request's share of the queue and of the memory, given back when it is done."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._bytes = 0
        self._running = False

    def take(self, count: int) -> None:
        """Counts that many bytes more. Raises `ServingError` RESOURCE_EXHAUSTED if they do not fit."""
        self._workers._take(count)
        self._bytes += count

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, run by one of the threads. If the awaiting task is cancelled, work that has not begun
        is dropped."""
        future = self._workers._submit(work)
        self._running = True
        future.add_done_callback(lambda _: self._workers._give_back(self._bytes))
        return await asyncio.wrap_future(future)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._running:
            self._workers._give_back(self._bytes)
