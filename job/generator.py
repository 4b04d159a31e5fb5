"""Batches for one worker: rescaled float32 images with binary labels, from the cache, in the order of `job.order`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from job.cache import Cache
from job.limits import SIDE
from job.order import PADDING, Indices, Order
from job.preprocess import rescale
from job.scan import Scan


class Batches:
    """One worker's batches of `scans` (of all workers), each the same local size for every worker.

    A batch is `images` float32 [b, 224, 224, 3] in [0, 1]; `labels` float32 [b, 1]; `weights` float32 [b], 0 where a
    place is padding; `seeds` int32 [b, 2], a random seed for each scan in this epoch.
    """

    def __init__(self, scans: Sequence[Scan], cache: Cache, order: Order, worker: int = 0, workers: int = 1) -> None:
        if order.n != len(scans):
            raise ValueError(f"an order of {order.n} for {len(scans)} scans")
        self.order = order
        self._scans, self._cache = scans, cache
        self._worker, self._workers = worker, workers

    def fill_cache(self, threads: int) -> int:
        """Decodes what this worker will need and is not in the cache; returns how many that were."""
        owned = self.order.owned(self._worker, self._workers)
        return self._cache.fill([self._scans[index] for index in owned], threads)

    def count(self, step: int) -> int:
        """Scans in the global batch of a step, padding not counted."""
        return min(self.order.batch_size, self.order.n - step * self.order.batch_size)

    def epochs(self, first: int, last: int, first_step: int = 0) -> tf.data.Dataset:
        """All batches from `first_step` of epoch `first` to the end of epoch `last` - 1, the next ones made ready
        while one is in use."""

        def generate() -> Iterator[tuple[Any, ...]]:
            for epoch in range(first, last):
                steps = self.order.share(epoch, self._worker, self._workers, first_step if epoch == first else 0)
                for indices in steps:
                    yield self._batch(epoch, indices)

        spec = (
            tf.TensorSpec((None, SIDE, SIDE, 3), tf.uint8),
            tf.TensorSpec((None, 1), tf.float32),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((None, 2), tf.int32),
        )
        dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
        return dataset.map(lambda pixels, *rest: (rescale(pixels), *rest)).prefetch(2)

    def _batch(self, epoch: int, indices: Indices) -> tuple[Any, ...]:
        real = indices != PADDING
        pixels = np.zeros((len(indices), SIDE, SIDE, 3), np.uint8)
        labels = np.zeros((len(indices), 1), np.float32)
        scans = [self._scans[index] for index in indices[real]]
        pixels[real] = self._cache.read(scans)
        labels[real, 0] = [scan.label for scan in scans]
        seeds = np.stack([np.full_like(indices, epoch * (1 << 16) + self.order.seed % (1 << 16)), indices], axis=1)
        return pixels, labels, real.astype(np.float32), seeds.astype(np.int32)
