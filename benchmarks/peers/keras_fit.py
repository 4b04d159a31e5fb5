"""What the two Keras peers share: the network as the mission words it, `fit` with a clock, and the export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.protocol import EPSILON, LEARNING_RATE, RHO, Outcome, Task, auc
from job.limits import SIDE
from job.settings import Model


def prepare(task: Task) -> None:
    """Threads, precision and seed. Before anything else of TensorFlow."""
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    tf.config.threading.set_inter_op_parallelism_threads(task.threads)
    keras.utils.set_random_seed(task.seed)
    keras.mixed_precision.set_global_policy(task.precision)


def network(task: Task) -> keras.Model:
    """The network, compiled, with the initial weights of the task."""
    layers, shape = keras.layers, Model()
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3))])
    for filters in shape.filters:
        model.add(layers.Conv2D(filters, shape.kernel_size, activation="relu"))
        model.add(layers.MaxPooling2D(shape.pool_size))
    model.add(layers.Flatten())
    model.add(layers.Dense(shape.dense, activation="relu"))
    model.add(layers.Dense(1, activation="sigmoid", dtype="float32"))
    model.set_weights(task.initial_weights())
    optimizer = keras.optimizers.RMSprop(LEARNING_RATE, rho=RHO, epsilon=EPSILON)
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    return model


class Clock(keras.callbacks.Callback):
    """Writes the times of `fit` into an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome, self._began, self._trained = outcome, 0.0, None

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Starts the epoch's clock."""
        self._began, self._trained = time.perf_counter(), None

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Notes when the first update was done."""
        self.outcome.step_done()

    def on_test_begin(self, *_: Any, **__: Any) -> None:
        """Validation follows: training of this epoch is over."""
        self._trained = time.perf_counter()

    def on_epoch_end(self, _: int, logs: Any = None) -> None:
        """Keeps the epoch's times and losses."""
        ended = time.perf_counter()
        self.outcome.train_seconds.append((self._trained or ended) - self._began)
        self.outcome.epoch_seconds.append(ended - self._began)
        self.outcome.loss.append(float(logs["loss"]))
        self.outcome.val_loss.append(float(logs["val_loss"]))


def run(
    task: Task, train: Any, val: Any, images: int, scored: dict[str, tuple[Any, Callable[[], np.ndarray]]]
) -> Outcome:
    """Fits, exports and scores. `scored` has, for val and test, batches in order and a function that gives labels."""
    outcome = Outcome(images=images)
    model = network(task)
    model.fit(train, validation_data=val, epochs=task.epochs, verbose=0, callbacks=[Clock(outcome)])
    probabilities = {part: model.predict(batches, verbose=0)[:, 0] for part, (batches, _) in scored.items()}
    model.export(str(task.export), verbose=False)
    outcome.exported = time.time()
    aucs = {part: auc(labels(), probabilities[part]) for part, (_, labels) in scored.items()}
    outcome.val_auc, outcome.test_auc = aucs["val"], aucs["test"]
    outcome.data_wait_share = waiting(model, train)
    return outcome


def waiting(model: keras.Model, train: Any) -> float:
    """The share of time that one more epoch of `fit` spends waiting for data.

    `fit` fetches a batch inside of its compiled step; here the two are taken apart, so that each has a clock.
    """
    step = tf.function(lambda data: model.train_step(data), reduce_retracing=True)
    waited = [0.0]

    def timed(iterator: Iterator[Any]) -> dict[str, Any]:
        asked = time.perf_counter()
        data = next(iterator)
        waited[0] += time.perf_counter() - asked
        return step(data)

    model.train_function = timed
    model.fit(train, epochs=1, verbose=0)  # traces
    waited[0], began = 0.0, time.perf_counter()
    model.fit(train, epochs=1, verbose=0)
    return waited[0] / (time.perf_counter() - began)
