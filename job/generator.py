"""Batches for one worker: rescaled float32 images with binary labels, from the cache, in the order of `job.order`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from job.augment import Augmentation, augment
from job.cache import Cache
from job.limits import SIDE
from job.order import PADDING, Indices, Order
from job.preprocess import rescale
from job.scan import Scan

_AHEAD = 2
"""Batches made ready while one is in use."""


_APART = (0, 1 << 30)
"""Added to a scan's seeds for augmentation, so that it and dropout do not draw the same numbers."""


class Batch(NamedTuple):
    """One worker's part of a global batch, the same size b for every worker."""

    images: tf.Tensor
    """float32 [b, 224, 224, 3] in [0, 1]."""
    labels: tf.Tensor
    """float32 [b, 1], 0 or 1."""
    weights: tf.Tensor
    """float32 [b], 0 where a place is padding."""
    seeds: tf.Tensor
    """int32 [b, 2], a random seed for each scan in this epoch."""


class Batches:
    """One worker's batches of `scans` (which are those of all workers)."""

    def __init__(
        self,
        scans: Sequence[Scan],
        cache: Cache,
        order: Order,
        worker: int = 0,
        workers: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        if order.n != len(scans):
            raise ValueError(f"an order of {order.n} for {len(scans)} scans")
        self.order = order
        self._scans, self._cache = scans, cache
        self._worker, self._workers = worker, workers
        self._augmentation = augmentation

    def fill_cache(self, threads: int) -> int:
        """Decodes what this worker will need and is not in the cache; returns how many that were."""
        owned = self.order.owned(self._worker, self._workers)
        return self._cache.fill([self._scans[index] for index in owned], threads)

    def count(self, step: int) -> int:
        """Scans in the global batch of a step, padding not counted."""
        return min(self.order.batch_size, self.order.n - step * self.order.batch_size)

    def at(self, epoch: int, indices: Indices) -> Batch:
        """The scans `indices` (int64 [b]) as an epoch shows them, in whatever step that is."""
        return self._batch(epoch, indices)

    def epochs(self, first: int, last: int, first_step: int = 0) -> Iterator[Batch]:
        """All batches from `first_step` of epoch `first` to the end of epoch `last` - 1, made ready in a thread."""
        return _ahead(self._epochs(first, last, first_step))

    def _epochs(self, first: int, last: int, first_step: int) -> Iterator[Batch]:
        for epoch in range(first, last):
            start = first_step if epoch == first else 0
            for indices in self.order.share(epoch, self._worker, self._workers, start):
                yield self._batch(epoch, indices)

    def _batch(self, epoch: int, indices: Indices) -> Batch:
        real = indices != PADDING
        pixels = np.zeros((len(indices), SIDE, SIDE, 3), np.uint8)
        labels = np.zeros((len(indices), 1), np.float32)
        scans = [self._scans[index] for index in indices[real]]
        pixels[real] = self._cache.read(scans)
        labels[real, 0] = [scan.label for scan in scans]
        seeds = tf.constant(_seeds(self.order.seed, epoch, indices))
        images = rescale(tf.constant(pixels))
        if self._augmentation is not None:
            images = augment(images, seeds + _APART, self._augmentation)
        return Batch(images, tf.constant(labels), tf.constant(real, tf.float32), seeds)


def _seeds(seed: int, epoch: int, indices: Indices) -> npt.NDArray[np.int32]:
    """A seed int32 [b, 2] for each scan in an epoch of a run."""
    of_epoch = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]) % (1 << 31)
    return np.stack([np.full_like(indices, of_epoch), indices], axis=1).astype(np.int32)


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, with the next ones made in a thread. An exception there is raised here."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:  # whatever it is, it belongs to the consumer
            put(error)

    thread = threading.Thread(target=produce, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
