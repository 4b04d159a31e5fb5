"""Checkpoints: the whole state of training after any step, as bundles that are complete or do not exist."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from job.errors import UserError
from job.storage import DamagedBundle, Storage

FOLDER = "checkpoints"
"""Below the run's folder."""

KEPT = 3
"""How many of the newest are kept: one may be damaged, and one may be in use by a reader."""


@dataclass(frozen=True)
class State:
    """Where training stands: all that decides how it goes on."""

    epoch: int
    """The epoch at work, from 0; the number of epochs once training is done."""
    step: int
    """Steps done in that epoch."""
    updates: int
    """Steps done since the beginning."""
    weights: list[npt.NDArray[Any]]
    """The network's, in the order of `Classifier.trainable_variables`."""
    optimizer: list[npt.NDArray[Any]]
    """The optimizer's variables, in its order."""
    totals: list[float]
    """Sums over the scans of the epoch so far, of all workers."""
    seconds: float = 0.0
    """Spent in the epoch so far."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A line of metrics for each finished epoch."""


_PLAIN = [name for name in State.__dataclass_fields__ if name not in ("weights", "optimizer")]


BEGINNING = State(0, 0, 0, [], [], [0.0, 0.0, 0.0])
"""Nothing done yet; the weights are those that the network starts with."""


def name_of(updates: int) -> str:
    """The name of the checkpoint after that many steps."""
    return f"step-{updates:08d}"


def save(storage: Storage, state: State) -> None:
    """Stores a checkpoint, then removes all but the newest `KEPT`."""
    buffer = io.BytesIO()
    arrays = {f"{kind}{i:03d}": a for kind in ("weights", "optimizer") for i, a in enumerate(getattr(state, kind))}
    np.savez(buffer, **arrays)
    plain = {name: getattr(state, name) for name in _PLAIN}
    files = {"arrays.npz": buffer.getvalue(), "state.json": json.dumps(plain).encode()}
    name = f"{FOLDER}/{name_of(state.updates)}"
    if not storage.write_bundle(name, files):
        # One of that step is there from before this run went on from an older one: it was damaged.
        storage.delete(name)
        storage.write_bundle(name, files)
    for name in storage.bundles(FOLDER)[:-KEPT]:
        storage.delete(f"{FOLDER}/{name}")


def load(storage: Storage, name: str) -> State:
    """The checkpoint `name` of a run, verified. Raises `DamagedBundle` if it is not what was written."""
    files = storage.read_bundle(f"{FOLDER}/{name}")
    held: dict[str, Any]
    with np.load(io.BytesIO(files["arrays.npz"]), allow_pickle=False) as arrays:
        held = {
            kind: [arrays[key] for key in sorted(arrays) if key.startswith(kind)] for kind in ("weights", "optimizer")
        }
    plain: dict[str, Any] = json.loads(files["state.json"])
    return State(**plain, **held)


def load_newest(storage: Storage, notice: Callable[[str], None]) -> tuple[str, State] | None:
    """The newest checkpoint that can be read, with its name; a damaged one is said to `notice` and passed over."""
    for name in reversed(storage.bundles(FOLDER)):
        try:
            return name, load(storage, name)
        except (DamagedBundle, ValueError, KeyError) as error:
            notice(f"checkpoint {name} is passed over: {error}")
    return None


def newest(storage: Storage, notice: Callable[[str], None]) -> str | None:
    """The name of the newest checkpoint that can be read; see `load_newest`."""
    found = load_newest(storage, notice)
    return found[0] if found else None


def finished(storage: Storage, epochs: int) -> bool:
    """Whether the newest checkpoint that can be read is the one after the last epoch."""
    found = load_newest(storage, lambda _: None)
    return found is not None and found[1].epoch >= epochs


class Writer:
    """Writes checkpoints beside training: at most one at a time, the next one waits for it."""

    def __init__(self, storage: Storage, notice: Callable[[str], None]) -> None:
        self._storage, self._notice = storage, notice
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, state: State) -> None:
        """Begins to store a checkpoint. One that cannot be written (a full disk) is said, and training goes on."""
        self.flush()
        self._pending = self._pool.submit(save, self._storage, state)

    def flush(self, *, must: bool = False) -> None:
        """Waits for the checkpoint under way; with `must`, raises what went wrong instead of saying it."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except UserError as error:
            if must:
                raise
            self._notice(f"no checkpoint this time, training goes on: {error}")
