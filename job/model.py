"""The network: Conv2D (2x2, relu) and MaxPool2D, then Dense, Dropout and a sigmoid."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from job import settings
from job.limits import SIDE


class Classifier:
    """The network in two halves, so that dropout between them can be seeded by scan instead of by worker.

    Called with images float32 [n, 224, 224, 3] in [0, 1] it gives probabilities float32 [n, 1].
    """

    def __init__(self, model: settings.Model, *, precision: str = "float32", seed: int = 0) -> None:
        def layer(kind: type[keras.Layer], *arguments: Any, **named: Any) -> keras.Layer:
            if "kernel_initializer" not in named and kind in (keras.layers.Conv2D, keras.layers.Dense):
                named["kernel_initializer"] = keras.initializers.GlorotUniform(seed=seed * 1000 + len(trunk.layers))
            return kind(*arguments, dtype=precision, **named)

        layers = keras.layers
        trunk = keras.Sequential([keras.Input((SIDE, SIDE, 3))], name="trunk")
        for filters in model.filters:
            # Relu and max-pool commute, values and gradients alike; pooling first leaves relu a ninth of the work.
            trunk.add(layer(layers.Conv2D, filters, model.kernel_size))
            trunk.add(layer(layers.MaxPooling2D, model.pool_size))
            trunk.add(layer(layers.ReLU))
        trunk.add(layer(layers.Flatten))
        trunk.add(layer(layers.Dense, model.dense, activation="relu"))
        # The probability itself is always float32.
        initializer = keras.initializers.GlorotUniform(seed=seed * 1000 + len(trunk.layers))
        head = keras.Sequential(
            [
                keras.Input((model.dense,)),
                layers.Dense(1, activation="sigmoid", kernel_initializer=initializer, dtype="float32"),
            ],
            name="head",
        )
        self.dropout = model.dropout
        self._trunk, self._head = trunk, head

    def __call__(self, images: tf.Tensor, dropout_seeds: tf.Tensor | None = None) -> tf.Tensor:
        """Probabilities; with `dropout_seeds` int32 [n, 2], one seed per scan, dropout is on."""
        features = self._trunk(images, training=dropout_seeds is not None)
        if dropout_seeds is not None and self.dropout > 0:
            features = _dropout(features, self.dropout, dropout_seeds)
        return self._head(features)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """All weights, in a fixed order."""
        return [*self._trunk.trainable_variables, *self._head.trainable_variables]

    @property
    def variables(self) -> list[keras.Variable]:
        """What an export must carry: the weights."""
        return self.trainable_variables

    @property
    def layers(self) -> list[keras.Layer]:
        """All layers, in order."""
        return [*self._trunk.layers, *self._head.layers]


def _dropout(features: tf.Tensor, rate: float, seeds: tf.Tensor) -> tf.Tensor:
    """Inverted dropout of [n, d] features; which of them is a function of the scan's seed alone."""
    noise = tf.map_fn(
        lambda seed: tf.random.stateless_uniform(tf.shape(features)[1:], seed), seeds, fn_output_signature=tf.float32
    )
    return tf.where(noise >= rate, features / tf.cast(1 - rate, features.dtype), tf.zeros_like(features))
