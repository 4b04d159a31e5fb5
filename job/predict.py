"""A finished run's network in this process: its weights from the last checkpoint, and its probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from job import checkpoint
from job.cache import Cache
from job.model import Classifier
from job.preprocess import rescale
from job.scan import Scan
from job.settings import Settings
from job.trainer import make_optimizer, restore


def trained(settings: Settings, state: checkpoint.State) -> Classifier:
    """The network of a checkpoint: with its weights, or with their average where the settings want it."""
    model = Classifier(settings.model, precision=settings.training.precision, seed=settings.training.seed)
    optimizer = make_optimizer(settings.training, model)
    restore(model, optimizer, state)
    optimizer.finalize_variable_values(model.trainable_variables)
    return model


def probabilities(
    model: Callable[[tf.Tensor], tf.Tensor], scans: Sequence[Scan], cache: Cache, batch_size: int, threads: int
) -> npt.NDArray[np.float32]:
    """The model's probability for each scan, float32 [n], in the order of `scans`."""
    cache.fill(scans, threads)
    score = tf.function(lambda pixels: model(rescale(pixels))[:, 0], reduce_retracing=True)
    parts = [
        score(tf.constant(cache.read(scans[start : start + batch_size]))).numpy()
        for start in range(0, len(scans), batch_size)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
