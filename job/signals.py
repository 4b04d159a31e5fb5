"""Signals that end a command: SIGTERM as Ctrl-C does, and none of them in the middle of what must be done whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, a request to end, and the word that another driver has taken the run over (`job.lock`)."""


class Terminated(BaseException):
    """SIGTERM has come."""


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """SIGTERM unwinds what is under way, as Ctrl-C does, instead of killing the process there and then; then raises
    `Terminated`. In the main thread."""
    came = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        came.set()
        raise KeyboardInterrupt  # no exception of our own: while Ray waits it heeds this one alone

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        if came.is_set():
            raise Terminated from None
        raise
    except SystemExit as error:
        if error.code == signal.SIGTERM:  # what Ray makes of it while it starts
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def held_back() -> Iterator[None]:
    """Keeps signals that would end the command until the end of the block. The same one again is not kept."""
    came: list[int] = []
    before: dict[int, Any] = {}

    def keep(number: int, frame: FrameType | None) -> None:
        handler = before.get(number)
        if number in came and callable(handler):
            handler(number, frame)
        came.append(number)

    try:
        for ending in _ENDING:
            before[ending] = signal.getsignal(ending)
            signal.signal(ending, keep)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for one in dict.fromkeys(came):
            signal.raise_signal(one)
