"""One driver per run: a second submission of a run that is at work is told where the first one is.

Drivers take turns: a *turn* is a bundle, which storage gives to exactly one of any number of racing writers. The driver
whose turn it is renews a heartbeat; a turn without one is over (the driver ended), and a turn whose heartbeat stands
still has lost its driver (it was killed) and may be followed by the next.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.console import say
from job.errors import UserError
from job.storage import Storage

FOLDER = "turns"
"""Below the run's folder."""

_BEAT_SECONDS = 3.0
_LOST_SECONDS = 12.0
"""A heartbeat that stands still for this long, by the reader's own clock, is that of a lost driver."""

_TAKEN_OVER = signal.SIGUSR1
"""Interrupts this process as Ctrl-C does. Not SIGINT: background jobs of a shell script ignore it."""


@contextmanager
def turn(run: Storage, name: str) -> Iterator[None]:
    """Takes the run's next turn and keeps it until the end.

    If another driver takes over meanwhile (this one was stopped for long), this one is interrupted, so call it in the
    main thread.

    Raises:
        UserError: another driver is at work; the line says where.
    """
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    number = _take(run, name, since)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(run, number, since, ended), name="turn", daemon=True)
    before = signal.signal(_TAKEN_OVER, signal.default_int_handler)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        signal.signal(_TAKEN_OVER, before)
        if _newest(run) == number:
            run.delete(_heart(number))


def _take(run: Storage, name: str, since: str) -> int:
    last = _newest(run)
    if last and (where := _alive(run, last)):
        raise UserError(f"run {name} is at work on {where}; wait for it, or stop it first")
    number = last + 1
    run.write(_heart(number), _heartbeat(since))
    if not run.write_bundle(f"{FOLDER}/{number:06d}", {"driver.json": _heartbeat(since)}):
        raise UserError(f"run {name} was started somewhere else at the same moment; it goes on there")
    if last:
        run.delete(f"{FOLDER}/{last:06d}")
        run.delete(_heart(last))
    return number


def _newest(run: Storage) -> int:
    return max(map(int, run.bundles(FOLDER)), default=0)


def _alive(run: Storage, number: int) -> str | None:
    """Where the driver of that turn is at work, None if it has ended or is lost. May watch it for a while."""
    first = _read(run, number)
    if first is None:
        return None
    where = f"{first['host']} as process {first['pid']} since {first['since']}"
    if first["host"] == platform.node() and first["boot"] == _boot():
        return where if Path(f"/proc/{first['pid']}").exists() else None
    deadline = time.monotonic() + _LOST_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_BEAT_SECONDS / 3)
        now = _read(run, number)
        if now is None:
            return None
        if now["beat"] != first["beat"]:
            return where
    return None


def _beat(run: Storage, number: int, since: str, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_SECONDS):
        try:
            if _newest(run) > number:
                say("another driver has taken this run over; this one stops")
                os.kill(os.getpid(), _TAKEN_OVER)
                return
            run.write(_heart(number), _heartbeat(since))
        except UserError:
            continue  # storage that is away for a moment; if it stays away, training says so


def _read(run: Storage, number: int) -> dict[str, Any] | None:
    try:
        return dict(json.loads(run.read(_heart(number))))
    except (FileNotFoundError, ValueError):
        return None


def _heart(number: int) -> str:
    return f"{FOLDER}/{number:06d}.heartbeat"


def _heartbeat(since: str) -> bytes:
    said = {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "since": since, "beat": uuid.uuid4().hex}
    return json.dumps(said).encode()


def _boot() -> str:
    """Tells one start of a machine, or one container's view of it, from another."""
    namespace = Path("/proc/self/ns/pid")
    return f"{_text('/proc/sys/kernel/random/boot_id')} {namespace.readlink() if namespace.exists() else ''}"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
