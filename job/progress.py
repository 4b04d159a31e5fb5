"""How a run is going, for a person: a live bar on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType

from job import run
from job.console import say
from job.errors import UserError
from job.storage import Storage

_PATIENCE = (30.0, 60.0)
"""Seconds without a sign before the first word about it, and between further ones."""


class Progress:
    """Watches a run's metrics from a thread and tells of each epoch once."""

    def __init__(self, storage: Storage, epochs: int, waiting_for: str) -> None:
        self._storage, self._epochs, self._waiting_for = storage, epochs, waiting_for
        self._told = len(run.metrics(storage))
        self._began = self._epoch_began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        if self._told:
            say(f"resumed: {self._told} of {self._epochs} epochs are known")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._tell()

    def _watch(self) -> None:
        patience = self._began + _PATIENCE[0]
        while not self._stop.wait(0.25):
            if self._tell():
                patience = time.monotonic() + _PATIENCE[1]
            elif time.monotonic() > patience:
                say(f"no new epoch for {time.monotonic() - self._epoch_began:.0f} s; {self._waiting_for}")
                patience = time.monotonic() + _PATIENCE[1]

    def _tell(self) -> bool:
        """Says what is new; whether anything was."""
        try:
            lines = run.metrics(self._storage)
        except (UserError, ValueError):
            return False  # the run goes on whether or not it can be watched
        new = lines[self._told :]
        for line in new:
            self._epoch_began = time.monotonic()
            text = describe(line, self._epochs)
            if sys.stderr.isatty():
                done = round(20 * line["epoch"] / self._epochs)
                end = "\n" if line["epoch"] == self._epochs else ""
                sys.stderr.write(f"\r\x1b[K[{'#' * done}{'.' * (20 - done)}] {text}{end}")
                sys.stderr.flush()
            else:
                say(text)
        self._told = max(self._told, len(lines))
        return bool(new)


def describe(line: Mapping[str, float], epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {line['epoch']:.0f}/{epochs}  loss {line['loss']:.4f}  accuracy {line['accuracy']:.3f}  "
        f"val_loss {line['val_loss']:.4f}  val_accuracy {line['val_accuracy']:.3f}  "
        f"{line['images_per_second']:.0f} images/s  {line['seconds']:.1f} s"
    )
