"""Keras's RMSprop with one kernel per variable and no collective."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class RMSprop(keras.optimizers.RMSprop):  # type: ignore[misc]  # Keras has no types
    """The update of `keras.optimizers.RMSprop` (no momentum, not centred), computed by TensorFlow's fused kernel.

    Keras writes it as nine operations, each of which goes through memory once; and under a strategy with several
    workers it would sum gradients that are sums already.
    """

    def build(self, variables: list[Any]) -> None:
        """See Keras. The kernel also wants a place for its increments; with no momentum they are not state."""
        super().build(variables)
        self._increments = [tf.Variable(tf.zeros(variable.shape), trainable=False) for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """See Keras."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._increments[index].handle,
            lr=learning_rate,
            rho=self.rho,
            momentum=0.0,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _all_reduce_sum_gradients(self, pairs: list[tuple[tf.Tensor, tf.Variable]]) -> list[tuple[Any, Any]]:
        """The same pairs, once all gradients are there: every worker computes those of the whole batch."""
        # The kernel writes in place: nobody may still compute with the old weights.
        with tf.control_dependencies([gradient for gradient, _ in pairs]):
            return [(tf.identity(gradient), variable) for gradient, variable in pairs]
