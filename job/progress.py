"""How a run is going, for a person: a live bar on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from job import run
from job.console import say
from job.errors import UserError
from job.storage import Storage

_PATIENCE = (30.0, 60.0)
"""Seconds without a sign before the first word about it, and between further ones."""

_LOOK_SECONDS = 1.0
"""Between two looks at the run's files, which may be far away."""


class Progress:
    """Watches a run's files from a thread and tells of each epoch once, and of silence.

    `waiting_for` says, in words, what the run waits for as long as training has not begun; `notices` gives the lines
    that the job has left for the user since it was asked last.
    """

    def __init__(
        self, storage: Storage, epochs: int, waiting_for: Callable[[], str], notices: Callable[[], list[str]]
    ) -> None:
        self._storage, self._epochs, self._waiting_for, self._notices = storage, epochs, waiting_for, notices
        self._told = len(run.metrics(storage))
        self._seen = self._look()
        self._began = self._changed = time.monotonic()
        self._live = sys.stderr.isatty()
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
        self._pass_on()
        self._tell()
        if self._live:
            sys.stderr.write("\n")

    def _watch(self) -> None:
        patience = self._began + _PATIENCE[0]
        while not self._stop.wait(_LOOK_SECONDS):
            self._pass_on()
            if self._tell() or self._moved():
                self._changed, patience = time.monotonic(), time.monotonic() + _PATIENCE[1]
            elif time.monotonic() > patience:
                silent = f"{time.monotonic() - self._changed:.0f} s"
                self._say(f"no step for {silent}; {self._waiting_for()}")
                patience = time.monotonic() + _PATIENCE[1]

    def _look(self) -> dict[str, int] | None:
        try:
            return run.progress(self._storage)
        except (UserError, ValueError):
            return None  # the run goes on whether or not it can be watched

    def _moved(self) -> bool:
        """Whether training has done steps since the last look; shows where it stands."""
        before, self._seen = self._seen, self._look()
        if self._seen is None or self._seen == before:
            return False
        if self._live:
            self._bar(
                self._seen["epoch"] - 1 + self._seen["step"] / self._seen["steps"], f"epoch {self._seen['epoch']}"
            )
        return True

    def _pass_on(self) -> None:
        for line in self._notices():
            self._say(line)

    def _say(self, line: str) -> None:
        """A line of its own, which on a terminal takes the bar's place."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
        say(line)

    def _tell(self) -> bool:
        """Says what epochs are new; whether any were."""
        try:
            lines = run.metrics(self._storage)
        except (UserError, ValueError):
            return False
        new = lines[self._told :]
        for line in new:
            text = describe(line, self._epochs)
            if self._live:
                self._bar(line["epoch"], text)
            else:
                say(text)
        self._told = max(self._told, len(lines))
        return bool(new)

    def _bar(self, done: float, text: str) -> None:
        filled = round(20 * done / self._epochs)
        sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (20 - filled)}] {text}")
        sys.stderr.flush()


def describe(line: Mapping[str, float], epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {line['epoch']:.0f}/{epochs}  loss {line['loss']:.4f}  accuracy {line['accuracy']:.3f}  "
        f"val_loss {line['val_loss']:.4f}  val_accuracy {line['val_accuracy']:.3f}  "
        f"{line['images_per_second']:.0f} images/s  {line['seconds']:.1f} s"
    )
