"""The network: the layers the mission words, and dropout that every worker draws alike."""

from dataclasses import replace

import numpy as np
import tensorflow as tf

from job import settings
from job.model import Classifier
from tests.training_support import plain_keras


def test_relu_after_pooling_is_relu_before_pooling():
    config = settings.Model(filters=(4, 8), pool_size=3, dense=8)
    ours = Classifier(config, seed=3)
    plain = plain_keras([4, 8], 3, 8)
    plain.set_weights([v.numpy() for v in ours.trainable_variables])
    images = np.random.default_rng(0).random((4, 224, 224, 3), np.float32)
    np.testing.assert_array_equal(ours(images), plain(images))

    def gradients(model, variables):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images))
        return tape.gradient(loss, [v.value for v in variables])

    pairs = zip(gradients(ours, ours.trainable_variables), gradients(plain, plain.trainable_variables), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_input_range_is_stretched_to_before_the_first_convolution():
    config = settings.Model(filters=(4, 8), pool_size=3, dense=8)
    ours = Classifier(replace(config, input_range=(-1, 1)), seed=3)
    plain = plain_keras([4, 8], 3, 8)
    plain.set_weights([v.numpy() for v in Classifier(config, seed=3).trainable_variables])
    images = np.random.default_rng(0).random((4, 224, 224, 3), np.float32)
    np.testing.assert_allclose(ours(images), plain(images * 2 - 1), rtol=0, atol=1e-6)


def test_dropout_is_a_function_of_the_scans_seed_alone():
    model = Classifier(settings.Model(filters=(2,), pool_size=50, dense=64, dropout=0.5), seed=1)
    images = np.random.default_rng(0).random((6, 224, 224, 3), np.float32)
    seeds = np.stack([np.zeros(6), np.arange(6)], axis=1).astype(np.int32)

    def logits(images, seeds):
        return model.head(model.trunk(images), seeds).numpy()

    whole = logits(images, seeds)
    parts = np.concatenate([logits(images[i::2], seeds[i::2]) for i in (0, 1)])
    np.testing.assert_allclose(whole, parts[[0, 3, 1, 4, 2, 5]], rtol=0, atol=1e-6)
    assert not np.allclose(whole, logits(images, seeds + 100))
    assert not np.allclose(whole, logits(images, None))
    np.testing.assert_allclose(tf.sigmoid(logits(images, None)), model(images), rtol=0, atol=1e-7)
