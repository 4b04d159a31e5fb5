"""Where in a scan the network found its answer: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391).

A map that looks sensible proves little: some methods give much the same picture for a network with random weights
(Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv:1810.03292). `similarity` measures that.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from job.model import Classifier

Maps = npt.NDArray[np.float32]


def grad_cam(model: Classifier, images: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> Maps:
    """Maps float32 [n, h, w] in [0, 1] of the last convolution's output, each scaled to a largest value of 1.

    Args:
        model: the network.
        images: float32 [n, 224, 224, 3] in [0, 1].
        positive: [n], which class each map is for; True is the positive one.

    A map is all zeros where nothing spoke for the class.
    """
    layers = model.layers
    last = max(index for index, layer in enumerate(layers) if isinstance(layer, keras.layers.Conv2D))
    features: Any = tf.constant(images)
    for layer in layers[: last + 1]:
        features = layer(features)
    # The network pools before its relu, which gives what relu before pooling would; the maps are those of the latter.
    features = tf.nn.relu(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        hidden = features
        for layer in layers[last + 1 : -1]:
            hidden = layer(hidden, training=False) if isinstance(layer, keras.layers.Dropout) else layer(hidden)
        # The logit: the sigmoid's own gradient vanishes where the network is sure.
        logit = tf.cast(hidden, tf.float32) @ tf.convert_to_tensor(layers[-1].kernel)
        score = tf.reduce_sum(tf.where(positive[:, None], logit, -logit))
    gradient = tf.cast(tape.gradient(score, features), tf.float32)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1)).numpy()
    largest = maps.max(axis=(1, 2), keepdims=True)
    scaled: Maps = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
    return scaled


def similarity(one: Maps, other: Maps) -> float | None:
    """The mean over scans of the rank correlation (Spearman) between two sets of maps [n, h, w]: 1 for the same order
    of places, 0 for unrelated ones. A scan with a flat map on either side is left out; None if none is left."""
    found = []
    for a, b in zip(one, other, strict=True):
        x, y = _ranks(a), _ranks(b)
        if x.std() > 0 and y.std() > 0:
            found.append(float(np.corrcoef(x, y)[0, 1]))
    return float(np.mean(found)) if found else None


def _ranks(values: Maps) -> npt.NDArray[np.float64]:
    """The rank of each value; equal ones share the mean of theirs."""
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    return np.asarray(np.cumsum(counts) - (counts - 1) / 2, dtype=np.float64)[inverse]
