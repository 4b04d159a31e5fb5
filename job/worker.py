"""What every worker does: fill the cache, train under the strategy, checkpoint, and tell how it goes.

Runs inside Ray Train's workers, or, for one worker, in any process (`Solo`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf

from job import checkpoint, telemetry
from job.cache import Cache
from job.generator import Batches
from job.model import Classifier
from job.order import Order
from job.run import MANIFEST, METRICS
from job.scan import from_lines
from job.settings import Settings
from job.storage import Storage, open_storage


class Team(Protocol):
    """The other workers, as far as this one must know them."""

    rank: int
    size: int

    def agree(self, value: Any) -> Any:
        """The value that worker 0 gave, for all."""

    def report(self, metrics: dict[str, Any]) -> None:
        """Makes metrics known to whoever watches the run."""


@dataclass
class Solo:
    """A team of one."""

    rank: int = 0
    size: int = 1

    def agree(self, value: Any) -> Any:
        """See `Team.agree`."""
        return value

    def report(self, metrics: dict[str, Any]) -> None:
        """See `Team.report`."""


def make_strategy(*, gpu: bool) -> tf.distribute.Strategy:
    """The distribution strategy; the first thing a worker does, before any TensorFlow operation."""
    kind = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=kind.NCCL if gpu else kind.RING)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


class Trainer:
    """The network, its optimizer and the two steps, under a strategy with one replica per worker."""

    def __init__(self, settings: Settings, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        with strategy.scope():
            training = settings.training
            self.model = Classifier(settings.model, precision=training.precision, seed=training.seed)
            self.optimizer = keras.optimizers.RMSprop(training.learning_rate)
            self.optimizer.build(self.model.trainable_variables)
        self.train_step = tf.function(self._train_step)
        self.score_step = tf.function(self._score_step)
        self.sum = tf.function(self._sum)

    def _train_step(self, totals: tf.Tensor, batch: tuple[tf.Tensor, ...], count: tf.Tensor) -> tf.Tensor:
        """One update from a global batch of `count` scans; this worker's `totals` with its part added."""
        return self.strategy.run(self._update, (totals, batch, count))

    def _update(self, totals: tf.Tensor, batch: tuple[tf.Tensor, ...], count: tf.Tensor) -> tf.Tensor:
        images, labels, weights, seeds = batch
        with tf.GradientTape() as tape:
            probabilities = self.model(images, seeds)
            losses = keras.losses.binary_crossentropy(labels, probabilities) * weights
            loss = tf.reduce_sum(losses) / count
        variables = [variable.value for variable in self.model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return totals + _totals(losses, labels, probabilities, weights)

    def _score_step(self, totals: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """This worker's `totals` with a batch added, and nothing learned."""
        return self.strategy.run(self._score, (totals, batch))

    def _score(self, totals: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
        images, labels, weights, _ = batch
        probabilities = self.model(images)
        losses = keras.losses.binary_crossentropy(labels, probabilities) * weights
        return totals + _totals(losses, labels, probabilities, weights)

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        """The sum over all workers."""
        return self.strategy.reduce("SUM", self.strategy.run(tf.identity, (values,)), axis=None)

    def state(self) -> dict[str, Any]:
        """Copies of the weights and of the optimizer's variables."""
        return {
            "weights": [variable.numpy() for variable in self.model.trainable_variables],
            "optimizer": [variable.numpy() for variable in self.optimizer.variables],
        }

    def restore(self, state: checkpoint.State) -> None:
        """Takes both from a checkpoint."""
        for variables, values in (
            (self.model.trainable_variables, state.weights),
            (self.optimizer.variables, state.optimizer),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def check_same(self, workers: int) -> str:
        """The sha256 of the weights. Raises `RuntimeError` unless all workers hold the same, bit for bit."""
        digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in self.model.trainable_variables)).hexdigest()
        number = int(digest[:15], 16)
        if int(self.sum(tf.constant(number, tf.int64))) != (number * workers + (1 << 63)) % (1 << 64) - (1 << 63):
            raise RuntimeError("the workers no longer hold the same weights: this must never happen, report it")
        return digest


def _totals(losses: tf.Tensor, labels: tf.Tensor, probabilities: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """[sum of losses, number of right answers, number of scans], float64."""
    right = tf.cast(tf.equal(labels[:, 0] > 0.5, probabilities[:, 0] > 0.5), tf.float64) * tf.cast(weights, tf.float64)
    sums = (
        tf.reduce_sum(tf.cast(losses, tf.float64)),
        tf.reduce_sum(right),
        tf.reduce_sum(tf.cast(weights, tf.float64)),
    )
    return tf.stack(sums)


def work(settings: Settings, run_url: str, team: Team, notice: Callable[[str], None]) -> None:
    """Trains from the newest checkpoint of the run (or from the beginning) to the end of the last epoch."""
    threads = settings.cluster.cpus_per_worker
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
    strategy = make_strategy(gpu=settings.cluster.gpu)
    run = open_storage(run_url)
    trainer = Trainer(settings, strategy)
    scans = from_lines(run.read(MANIFEST))
    cache = Cache(open_storage(settings.data.root), canonical=settings.data.canonical)
    batches = {
        part: Batches(
            chosen,
            cache,
            Order(len(chosen), settings.training.batch_size, settings.training.seed),
            team.rank,
            team.size,
        )
        for part in ("train", "val")
        if (chosen := [scan for scan in scans if scan.split == part])
    }
    for part in batches.values():
        part.fill_cache(threads)
    name = team.agree(checkpoint.newest(run, notice) if team.rank == 0 else None)
    state = checkpoint.load(run, name) if name else checkpoint.State(0, 0, 0, [], [], [0.0, 0.0, 0.0])
    if name:
        trainer.restore(state)
    _train(settings, trainer, batches["train"], batches["val"], run, team, state, notice)


def _train(
    settings: Settings,
    trainer: Trainer,
    train: Batches,
    val: Batches,
    run: Storage,
    team: Team,
    state: checkpoint.State,
    notice: Callable[[str], None],
) -> None:
    epochs = settings.training.epochs
    every = settings.cluster.checkpoint_every_steps
    writer = checkpoint.Writer(run, notice)
    history = list(state.history)
    updates, first_step = state.updates, state.step
    # What this worker adds to the epoch's totals; worker 0 carries what a checkpoint held of all workers.
    totals = tf.constant(state.totals if team.rank == 0 else [0.0] * 3, tf.float64)
    spent = state.seconds
    stream = iter(train.epochs(state.epoch, epochs, first_step))
    for epoch in range(state.epoch, epochs):
        began, waited, steps_here = time.perf_counter(), 0.0, 0
        for step in range(first_step, train.order.steps):
            asked = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - asked
            totals = trainer.train_step(totals, batch, tf.constant(train.count(step), tf.float32))
            updates, steps_here = updates + 1, steps_here + 1
            # Not after the very last step: the checkpoint of the finished run has that name.
            if updates % every == 0 and updates < epochs * train.order.steps:
                sums = trainer.sum(totals).numpy().tolist()
                if team.rank == 0:
                    seconds = spent + time.perf_counter() - began
                    held = trainer.state()
                    writer.save(
                        checkpoint.State(
                            epoch, step + 1, updates, **held, totals=sums, seconds=seconds, history=history
                        )
                    )
                totals = tf.constant(sums if team.rank == 0 else [0.0] * 3, tf.float64)
        sums = trainer.sum(totals).numpy()
        seconds = time.perf_counter() - began
        scored = tf.zeros(3, tf.float64)
        for batch in val.epochs(0, 1):
            scored = trainer.score_step(scored, batch)
        val_sums = trainer.sum(scored).numpy()
        line = {
            "epoch": epoch + 1,
            "loss": sums[0] / sums[2],
            "accuracy": sums[1] / sums[2],
            "val_loss": val_sums[0] / val_sums[2],
            "val_accuracy": val_sums[1] / val_sums[2],
            "images_per_second": min(steps_here * train.order.batch_size, train.order.n) / seconds,
            "data_wait_share": waited / seconds,
            "seconds": spent + time.perf_counter() - began,
            "time": time.time(),
        }
        digest = trainer.check_same(team.size)
        history.append(line)
        if team.rank == 0:
            run.write(METRICS, b"".join(json.dumps(entry).encode() + b"\n" for entry in history))
            telemetry.write_tensorboard(run, history, settings.training.learning_rate)
        team.report({**line, "weights_sha256": digest})
        first_step, spent = 0, 0.0
        totals = tf.zeros(3, tf.float64)
    if team.rank == 0:
        writer.save(checkpoint.State(epochs, 0, updates, **trainer.state(), totals=[0.0] * 3, history=history))
        writer.flush(must=True)
