"""The network: Conv2D (2x2, relu) and MaxPool2D, then Dense, Dropout and a sigmoid."""

from __future__ import annotations

import keras
import tensorflow as tf

from job import settings
from job.limits import SIDE


class Classifier:
    """The network in two halves: the trunk of convolutions, with most of the arithmetic, and the dense head, with most
    of the weights.

    Called with images float32 [n, 224, 224, 3] in [0, 1] it gives probabilities float32 [n, 1].
    """

    def __init__(self, model: settings.Model, *, precision: str = "float32", seed: int = 0) -> None:
        layers = keras.layers

        def initializer(number: int) -> keras.Initializer:
            return keras.initializers.GlorotUniform(seed=seed * 1000 + number)

        trunk = keras.Sequential([keras.Input((SIDE, SIDE, 3))], name="trunk")
        low, high = model.input_range
        if (low, high) != (0, 1):
            trunk.add(layers.Rescaling(high - low, low, dtype="float32"))
        for index, filters in enumerate(model.filters):
            # Relu and max-pool commute, values and gradients alike; pooling first leaves relu a ninth of the work.
            kernel = initializer(3 * index)
            trunk.add(layers.Conv2D(filters, model.kernel_size, kernel_initializer=kernel, dtype=precision))
            trunk.add(layers.MaxPooling2D(model.pool_size, dtype=precision))
            trunk.add(layers.ReLU(dtype=precision))
        trunk.add(layers.Flatten(dtype=precision))
        first, last = (initializer(3 * len(model.filters) + number) for number in (1, 2))
        self._trunk = trunk
        self._hidden = layers.Dense(model.dense, activation="relu", kernel_initializer=first, dtype=precision)
        self._last = layers.Dense(1, activation="sigmoid", kernel_initializer=last, dtype="float32")
        self._hidden.build((None, trunk.output_shape[-1]))
        self._last.build((None, model.dense))
        self._dropout = model.dropout

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Probabilities, without dropout."""
        return tf.sigmoid(self.head(self.trunk(images)))

    def trunk(self, images: tf.Tensor) -> tf.Tensor:
        """What the convolutions see: [n, d] in the precision of the layers."""
        return self._trunk(images)

    def head(
        self,
        features: tf.Tensor,
        dropout_seeds: tf.Tensor | None = None,
        weights: tuple[tf.Tensor, ...] | None = None,
    ) -> tf.Tensor:
        """Logits float32 [n, 1] from what the trunk gives; with `dropout_seeds` int32 [n, 2], one for each scan,
        dropout is on. `weights`: those of `head_weights`, for whoever calls more than once between two updates."""
        kernel, bias, last_kernel, last_bias = weights or self.head_weights()
        hidden = tf.nn.relu(tf.matmul(features, kernel) + bias)
        if dropout_seeds is not None and self._dropout > 0:
            hidden = _drop(hidden, self._dropout, dropout_seeds)
        return tf.matmul(tf.cast(hidden, tf.float32), last_kernel) + last_bias

    def head_weights(self) -> tuple[tf.Tensor, ...]:
        """The head's weights as they are now, in the precision they are used in."""
        hidden = [tf.cast(variable.value, self._hidden.compute_dtype) for variable in self._hidden.trainable_variables]
        return (*hidden, *(tf.convert_to_tensor(variable.value) for variable in self._last.trainable_variables))

    @property
    def trunk_variables(self) -> list[keras.Variable]:
        """The weights of the convolutions."""
        return list(self._trunk.trainable_variables)

    @property
    def head_variables(self) -> list[keras.Variable]:
        """The weights of the dense layers."""
        return [*self._hidden.trainable_variables, *self._last.trainable_variables]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """All weights, in a fixed order."""
        return [*self.trunk_variables, *self.head_variables]

    @property
    def variables(self) -> list[keras.Variable]:
        """What an export must carry: the weights."""
        return self.trainable_variables

    @property
    def layers(self) -> list[keras.Layer]:
        """All layers, in order."""
        return [*self._trunk.layers, self._hidden, self._last]


def _drop(features: tf.Tensor, rate: float, seeds: tf.Tensor) -> tf.Tensor:
    """Inverted dropout of [n, d] features; which of them is a function of the scan's seed alone."""
    noise = tf.map_fn(
        lambda seed: tf.random.stateless_uniform(tf.shape(features)[1:], seed), seeds, fn_output_signature=tf.float32
    )
    return tf.where(noise >= rate, features / tf.cast(1 - rate, features.dtype), tf.zeros_like(features))
