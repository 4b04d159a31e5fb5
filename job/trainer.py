"""The network under a distribution strategy: one update, one score, and the check that all workers agree."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from job import checkpoint
from job.generator import Batch
from job.model import Classifier
from job.settings import Settings


def limit_threads(threads: int) -> None:
    """Keeps TensorFlow to a worker's share of the processors. Before any TensorFlow operation of the process."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))


def make_strategy(*, gpu: bool, timeout: float) -> tf.distribute.Strategy:
    """The distribution strategy; the first thing a worker does, before any TensorFlow operation.

    A worker that waits for the others in a collective for more than `timeout` seconds fails, so that Ray Train starts
    the workers anew instead of waiting for one that will never answer.
    """
    kind = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=kind.NCCL if gpu else kind.RING, timeout_seconds=timeout
    )
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

    def _train_step(self, totals: tf.Tensor, batch: Batch, count: tf.Tensor) -> tf.Tensor:
        """One update from a global batch of `count` scans; this worker's `totals` with its part added."""
        return self.strategy.run(self._update, (totals, batch, count))

    def _update(self, totals: tf.Tensor, batch: Batch, count: tf.Tensor) -> tf.Tensor:
        images, labels, weights, seeds = batch
        with tf.GradientTape() as tape:
            probabilities = self.model(images, seeds)
            losses = keras.losses.binary_crossentropy(labels, probabilities) * weights
            loss = tf.reduce_sum(losses) / count
        variables = [variable.value for variable in self.model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return totals + _totals(losses, labels, probabilities, weights)

    def _score_step(self, totals: tf.Tensor, batch: Batch) -> tf.Tensor:
        """This worker's `totals` with a batch added, and nothing learned."""
        return self.strategy.run(self._score, (totals, batch))

    def _score(self, totals: tf.Tensor, batch: Batch) -> tf.Tensor:
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
            "weights": [np.array(variable.numpy()) for variable in self.model.trainable_variables],
            "optimizer": [np.array(variable.numpy()) for variable in self.optimizer.variables],
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
