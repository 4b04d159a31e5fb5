"""The network under a distribution strategy: one update, one score, and the check that all workers agree."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from job import checkpoint
from job.gather import gather
from job.generator import Batch
from job.model import Classifier
from job.optimizer import RMSprop
from job.preprocess import rescale
from job.settings import Settings, Training


def limit_threads(threads: int) -> None:
    """Keeps TensorFlow to a worker's share of the processors. Before any TensorFlow operation of the process.

    Each thread works on a micro-batch of its own instead of sharing every operation with the others.
    """
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


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


def make_optimizer(training: Training, model: Classifier) -> keras.optimizers.Optimizer:
    """The optimizer of the network's weights, with all its variables."""
    momentum = training.ema_momentum
    average = {} if momentum is None else {"use_ema": True, "ema_momentum": momentum}
    optimizer = RMSprop(training.learning_rate, **average)
    optimizer.build(model.trainable_variables)
    return optimizer


def restore(model: Classifier, optimizer: keras.optimizers.Optimizer, state: checkpoint.State) -> None:
    """Gives both what a checkpoint holds of them."""
    for variables, values in ((model.trainable_variables, state.weights), (optimizer.variables, state.optimizer)):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


class Trainer:
    """The network, its optimizer and the two steps, under a strategy with one replica per worker."""

    def __init__(self, settings: Settings, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self._micro_batch = settings.micro_batch
        with strategy.scope():
            training = settings.training
            self.model = Classifier(settings.model, precision=training.precision, seed=training.seed)
            self.optimizer = make_optimizer(training, self.model)
        # Traced for one micro-batch instead of for each of a batch: the graph that runs is the same, and sooner there.
        self._learn_once = tf.function(self._learn)
        self._see_once = tf.function(self._see)
        self.train_step = tf.function(self._train_step)
        self.score_step = tf.function(self._score_step)
        self._sum = tf.function(lambda value: strategy.reduce("SUM", strategy.run(tf.identity, (value,)), axis=None))

    def _train_step(self, totals: tf.Tensor, batch: Batch, count: tf.Tensor) -> tf.Tensor:
        """One update from a global batch of `count` scans; the `totals` with it added."""
        return self.strategy.run(self._update, (totals, batch, count))

    def _update(self, totals: tf.Tensor, batch: Batch, count: tf.Tensor) -> tf.Tensor:
        held = self.model.head_weights()
        micro_batches = _micro_batches(batch, self._micro_batch)
        learned = [self._learn_once(part, count, held) for part in micro_batches]
        # Gradients of several micro-batches are summed here and nowhere else, in the same order whatever the number of
        # workers. Not add_n: its order depends on which of its inputs is ready first (see `_losses`).
        gathered = self._gather(micro_batches, [features for features, _ in learned], count, [g for _, g in learned])
        features, labels, weights, seeds, *parts = gathered
        pairs = zip(parts, self.model.trunk_variables, strict=True)
        trunk = [tf.reshape(tf.reduce_sum(part, axis=0), variable.shape) for part, variable in pairs]
        # The head's gradients come from the whole batch: those of each micro-batch, as large as the head's weights,
        # would cost more to send and to sum than a second pass through the head.
        with tf.GradientTape() as tape:
            logits = self.model.head(features, seeds)
            losses = _losses(labels, logits, weights)
            loss = tf.reduce_sum(losses) / count
        head = tape.gradient(loss, _values(self.model.head_variables))
        self.optimizer.apply_gradients(zip([*trunk, *head], self.model.trainable_variables, strict=True))
        return totals + _totals(losses, labels, logits, weights)

    def _see(self, images: tf.Tensor) -> tf.Tensor:
        """The features of a micro-batch. Pixels that come as the cache keeps them are rescaled here and not by the
        generator: they are still in the processor's cache when the first convolution reads them."""
        return self.model.trunk(rescale(images) if images.dtype == tf.uint8 else images)

    def _learn(
        self, batch: Batch, count: tf.Tensor, head_weights: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """A micro-batch of a global batch of `count` scans: its features, and what it adds to the trunk's gradients."""
        images, labels, weights, seeds = batch
        with tf.GradientTape() as tape:
            features = self._see(images)
            losses = _losses(labels, self.model.head(features, seeds, head_weights), weights)
            loss = tf.reduce_sum(losses) / count
        return features, tape.gradient(loss, _values(self.model.trunk_variables))

    def _score_step(self, totals: tf.Tensor, batch: Batch, count: tf.Tensor) -> tf.Tensor:
        """The `totals` with a global batch of `count` scans added, and nothing learned."""
        return self.strategy.run(self._score, (totals, batch, count))

    def _score(self, totals: tf.Tensor, batch: Batch, count: tf.Tensor) -> tf.Tensor:
        micro_batches = _micro_batches(batch, self._micro_batch)
        found = [self._see_once(part.images) for part in micro_batches]
        features, labels, weights, _ = self._gather(micro_batches, found, count)
        logits = self.model.head(features)
        return totals + _totals(_losses(labels, logits, weights), labels, logits, weights)

    def _gather(
        self,
        micro_batches: list[Batch],
        features: list[tf.Tensor],
        count: tf.Tensor,
        gradients: list[list[tf.Tensor]] | None = None,
    ) -> list[tf.Tensor]:
        """Of the whole global batch: features [b, d], labels [b, 1], weights [b], seeds [b, 2], and the gradients by
        micro-batch, [micro-batches, size of the variable]."""
        precision, width = features[0].dtype, features[0].shape[1]
        parts = [
            [tf.cast(found, tf.float32), *batch[1:], *more]
            for found, batch, more in zip(features, micro_batches, gradients or [[]] * len(features), strict=True)
        ]
        number = tf.cast(tf.math.ceil(count / self._micro_batch), tf.int32)
        found, labels, weights, seeds, *rest = gather(parts, number)
        found = tf.cast(tf.reshape(found, [-1, width]), precision)
        return [found, tf.reshape(labels, [-1, 1]), tf.reshape(weights, [-1]), tf.reshape(seeds, [-1, 2]), *rest]

    def state(self) -> dict[str, Any]:
        """Copies of the weights and of the optimizer's variables."""
        return {
            "weights": [np.array(variable.numpy()) for variable in self.model.trainable_variables],
            "optimizer": [np.array(variable.numpy()) for variable in self.optimizer.variables],
        }

    def restore(self, state: checkpoint.State) -> None:
        """Takes both from a checkpoint."""
        restore(self.model, self.optimizer, state)

    def check_same(self, workers: int) -> str:
        """The sha256 of the weights. Raises `RuntimeError` unless all workers hold the same, bit for bit."""
        digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in self.model.trainable_variables)).hexdigest()
        number = int(digest[:15], 16)
        if int(self._sum(tf.constant(number, tf.int64))) != (number * workers + (1 << 63)) % (1 << 64) - (1 << 63):
            raise RuntimeError("the workers no longer hold the same weights: this must never happen, report it")
        return digest


def _micro_batches(batch: Batch, size: int) -> list[Batch]:
    """The batch in pieces of `size` scans."""
    number = batch.images.shape[0] // size
    return [Batch(*parts) for parts in zip(*(tf.split(values, number) for values in batch), strict=True)]


def _values(variables: list[keras.Variable]) -> list[tf.Variable]:
    return [variable.value for variable in variables]


def _losses(labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy of each scan, float32 [n]; 0 for padding.

    In this form every logit is used once: where gradients of several uses are added, TensorFlow's order of adding
    depends on which is ready first, and bits with it.
    """
    return tf.nn.softplus((1 - 2 * labels) * logits)[:, 0] * weights


def _totals(losses: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """[sum of losses, number of right answers, number of scans], float64."""
    right = tf.cast(tf.equal(labels[:, 0] > 0.5, tf.sigmoid(logits)[:, 0] > 0.5), tf.float64)
    sums = (
        tf.reduce_sum(tf.cast(losses, tf.float64)),
        tf.reduce_sum(right * tf.cast(weights, tf.float64)),
        tf.reduce_sum(tf.cast(weights, tf.float64)),
    )
    return tf.stack(sums)
