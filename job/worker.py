"""What every worker does: fill the cache, train under the strategy, checkpoint, and tell how it goes.

Runs inside Ray Train's workers, or, for one worker, in any process (`Solo`).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from job import augment, checkpoint, telemetry
from job.cache import Cache
from job.errors import UserError
from job.generator import Batch, Batches
from job.order import Order
from job.processor import emulates_bfloat16
from job.run import MANIFEST, METRICS, PROGRESS
from job.scan import Scan, from_lines
from job.settings import Settings
from job.storage import Storage, open_storage
from job.trainer import Trainer, make_strategy
from job.versions import peak_memory

_PROGRESS_SECONDS = 5.0
"""Between two words on where training stands."""


class Team(Protocol):
    """The other workers, as far as this one must know them."""

    rank: int
    size: int

    def agree(self, value: Any) -> Any:
        """The value that worker 0 gave, for all; every worker waits here for the others."""

    def report(self, metrics: dict[str, Any], checkpoint_name: str | None = None) -> None:
        """Makes metrics, and a checkpoint of the run, known to whoever watches the run."""


@dataclass
class Solo:
    """A team of one."""

    rank: int = 0
    size: int = 1

    def agree(self, value: Any) -> Any:
        """See `Team.agree`."""
        return value

    def report(self, metrics: dict[str, Any], checkpoint_name: str | None = None) -> None:
        """See `Team.report`."""


def work(settings: Settings, run_url: str, team: Team, notice: Callable[[str], None]) -> None:
    """Trains from the newest checkpoint of the run (or from the beginning) to the end of the last epoch."""
    cluster = settings.cluster
    if team.rank == 0 and settings.training.precision != "float32" and not cluster.gpu and emulates_bfloat16():
        notice(
            "this processor has no instructions for bfloat16 (such as AVX512_BF16 and AMX): "
            "training.precision=mixed_bfloat16 is likely to be much slower here than float32"
        )
    trainer = Trainer(settings, make_strategy(gpu=cluster.gpu, timeout=cluster.collective_timeout))
    run = open_storage(run_url)
    batches = make_batches(settings, run, team.rank, team.size)
    found = checkpoint.load_newest(run, notice) if team.rank == 0 else None
    name = team.agree(found[0] if found else None)
    state = checkpoint.BEGINNING
    if name:
        state = found[1] if found else checkpoint.load(run, name)
        trainer.restore(state)
    _Loop(settings, trainer, batches["train"], batches["val"], run, team, notice).run(state)


def make_batches(settings: Settings, run: Storage, rank: int, size: int) -> dict[str, Batches]:
    """This worker's batches of train and val, their pixels in the cache."""
    lines = run.read(MANIFEST)

    def scans_of(part: str) -> Iterator[Scan]:
        # Read anew each time: the lines are a few hundred bytes a scan, given back before training begins.
        return (scan for scan in from_lines(lines) if scan.split == part)

    cache = Cache(open_storage(settings.data.root), canonical=settings.data.canonical)
    counts = Counter(scan.split for scan in from_lines(lines))
    batches = {}
    for part in ("train", "val"):
        order = Order(counts[part], settings.training.batch_size, settings.training.seed, settings.micro_batch)
        augmentation = augment.parse(settings.data.augment) if part == "train" else None
        batches[part] = Batches(scans_of(part), cache, order, rank, size, augmentation)
        batches[part].fill_cache(scans_of(part), settings.cluster.cpus_per_worker)
    return batches


class _Loop:
    """Training from a state to the end. Worker 0 also writes what the others and the driver read."""

    def __init__(
        self,
        settings: Settings,
        trainer: Trainer,
        train: Batches,
        val: Batches,
        run: Storage,
        team: Team,
        notice: Callable[[str], None],
    ) -> None:
        self._settings, self._trainer, self._train, self._val = settings, trainer, train, val
        self._run, self._team = run, team
        self._notice = notice
        self._writer = checkpoint.Writer(run, notice)
        self._history: list[dict[str, float]] = []
        self._updates = 0
        self._told = 0.0

    def run(self, state: checkpoint.State) -> None:
        """Trains what is left after `state`."""
        epochs = self._settings.training.epochs
        self._history, self._updates = list(state.history), state.updates
        stream = self._train.epochs(state.epoch, epochs, state.step, rescaled=False)
        for epoch in range(state.epoch, epochs):
            resumed = epoch == state.epoch
            line = self._epoch(
                epoch, stream, state.step if resumed else 0, state.totals if resumed else [0.0] * 3,
                state.seconds if resumed else 0.0,
            )  # fmt: skip
            self._history.append(line)
            digest = self._trainer.check_same(self._team.size)
            if self._team.rank == 0:
                self._record(must=epoch + 1 == epochs)
            self._team.report({**line, "weights_sha256": digest})
        if self._team.rank == 0:
            self._writer.save(self._state(epochs, 0, [0.0] * 3, 0.0))
            self._writer.flush(must=True)
        if self._history:
            last = {**self._history[-1], "peak_memory_bytes": peak_memory()}
            self._team.report(last, checkpoint.name_of(self._updates))

    def _epoch(
        self, epoch: int, stream: Iterator[Batch], first_step: int, totals: list[float], spent: float
    ) -> dict[str, float]:
        """The steps of one epoch from `first_step` on, and its line of metrics. `totals` and `spent` are the epoch's
        sums and seconds up to there."""
        began, waited = time.perf_counter(), 0.0
        sums = tf.constant(totals, tf.float64)
        steps = self._train.order.steps
        for step in range(first_step, steps):
            asked = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - asked
            sums = self._trainer.train_step(sums, batch, _count(self._train, step))
            self._updates += 1
            self._tell(epoch, step + 1, steps)
            if self._team.rank == 0 and self._is_due(epoch, step):
                seconds = spent + time.perf_counter() - began
                self._writer.save(self._state(epoch, step + 1, sums.numpy().tolist(), seconds))
        loss, right, seen = sums.numpy()
        seconds = time.perf_counter() - began
        val_loss, val_right, val_seen = self._validate()
        here = sum(self._train.order.count(step) for step in range(first_step, steps))
        return {
            "epoch": epoch + 1,
            "loss": loss / seen,
            "accuracy": right / seen,
            "val_loss": val_loss / val_seen,
            "val_accuracy": val_right / val_seen,
            "images_per_second": here / seconds,
            "data_wait_share": waited / seconds,
            "seconds": spent + time.perf_counter() - began,
            "time": time.time(),
        }

    def _validate(self) -> Any:
        """[sum of losses, right answers, scans] over the validation part."""
        totals = tf.zeros(3, tf.float64)
        for step, batch in enumerate(self._val.epochs(0, 1, rescaled=False)):
            totals = self._trainer.score_step(totals, batch, _count(self._val, step))
        return totals.numpy()

    def _is_due(self, epoch: int, step: int) -> bool:
        """Whether a checkpoint follows this step. Not if training ends with it: that of the finished run has its
        number."""
        last = epoch + 1 == self._settings.training.epochs and step + 1 == self._train.order.steps
        return self._updates % self._settings.cluster.checkpoint_every_steps == 0 and not last

    def _state(self, epoch: int, step: int, totals: list[float], seconds: float) -> checkpoint.State:
        held = self._trainer.state()
        history = list(self._history)  # a copy: it is written while training goes on
        return checkpoint.State(epoch, step, self._updates, **held, totals=totals, seconds=seconds, history=history)

    def _record(self, *, must: bool) -> None:
        """Writes the metrics of all epochs so far. Unless they `must` be, those that cannot be written (a full disk)
        are said and left to the next epoch, which writes them all."""
        try:
            self._run.write(METRICS, b"".join(json.dumps(entry).encode() + b"\n" for entry in self._history))
            telemetry.write_tensorboard(self._run, self._history, self._settings.training.learning_rate)
        except (UserError, OSError) as error:
            if must:
                raise
            self._notice(f"no metrics this time, training goes on: {error}")

    def _tell(self, epoch: int, step: int, steps: int) -> None:
        """Writes where training stands, now and then."""
        if self._team.rank == 0 and time.monotonic() - self._told > _PROGRESS_SECONDS:
            self._told = time.monotonic()
            # On a full disk the notice about the checkpoint is enough.
            with contextlib.suppress(UserError):
                self._run.write(PROGRESS, json.dumps({"epoch": epoch + 1, "step": step, "steps": steps}).encode())


def _count(batches: Batches, step: int) -> tf.Tensor:
    return tf.constant(batches.order.count(step), tf.float32)
