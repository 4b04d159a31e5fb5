"""Batches for one worker: rescaled float32 images with binary labels, from the cache, in the order of `job.order`."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Iterable, Iterator
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

_DIGEST = 32
"""Bytes of a sha256."""

_APART = (0, 1 << 30)
"""Added to a scan's seeds for augmentation, so that it and dropout do not draw the same numbers."""


class Batch(NamedTuple):
    """One worker's part of a global batch, the same size b for every worker."""

    images: tf.Tensor
    """float32 [b, 224, 224, 3] in [0, 1]; or uint8, where they were asked for as the cache keeps them."""
    labels: tf.Tensor
    """float32 [b, 1], 0 or 1."""
    weights: tf.Tensor
    """float32 [b], 0 where a place is padding."""
    seeds: tf.Tensor
    """int32 [b, 2], a random seed for each scan in this epoch."""


class Batches:
    """One worker's batches of `scans` (which are those of all workers, in the order of the manifest).

    Goes through `scans` once and keeps 44 bytes of each of its own: what a worker holds must not grow with the data
    set as `Scan` objects would.
    """

    def __init__(
        self,
        scans: Iterable[Scan],
        cache: Cache,
        order: Order,
        worker: int = 0,
        workers: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.order = order
        self._cache = cache
        self._worker, self._workers = worker, workers
        self._augment = None if augmentation is None else tf.function(functools.partial(augment, ranges=augmentation))
        self._owned = np.sort(order.owned(worker, workers))
        self._digests = np.zeros((len(self._owned), _DIGEST), np.uint8)
        self._labels = np.zeros(len(self._owned), np.float32)
        known = 0
        for place, scan in self._mine(scans):
            self._digests[place] = np.frombuffer(bytes.fromhex(scan.sha256), np.uint8)
            self._labels[place] = scan.label
            known = place + 1
        if known < len(self._owned):
            raise ValueError(f"an order of {order.n} scans for fewer")

    def fill_cache(self, scans: Iterable[Scan], threads: int) -> int:
        """Decodes which of `scans` (the same again) this worker will need and are not in the cache; returns how many
        that were."""
        return self._cache.fill((scan for _, scan in self._mine(scans)), threads)

    def _mine(self, scans: Iterable[Scan]) -> Iterator[tuple[int, Scan]]:
        """This worker's scans, each with its place among them."""
        place = 0
        for index, scan in enumerate(scans):
            if index >= self.order.n:
                raise ValueError(f"an order of {self.order.n} scans for more")
            if place < len(self._owned) and self._owned[place] == index:
                yield place, scan
                place += 1

    def epochs(self, first: int, last: int, first_step: int = 0, *, rescaled: bool = True) -> Iterator[Batch]:
        """All batches from `first_step` of epoch `first` to the end of epoch `last` - 1, made ready in a thread.

        Without `rescaled`, images that are not augmented stay the uint8 pixels of the cache, a quarter of the bytes,
        for a consumer that runs `job.preprocess.rescale` where it computes.
        """
        return _ahead(self._epochs(first, last, first_step, rescaled))

    def _epochs(self, first: int, last: int, first_step: int, rescaled: bool) -> Iterator[Batch]:
        for epoch in range(first, last):
            start = first_step if epoch == first else 0
            for indices in self.order.share(epoch, self._worker, self._workers, start):
                yield self.at(epoch, indices, rescaled=rescaled)

    def at(self, epoch: int, indices: Indices, *, rescaled: bool = True) -> Batch:
        """The scans `indices` (int64 [b]) as an epoch shows them, in whatever step that is; see `epochs`."""
        real = indices != PADDING
        pixels = np.zeros((len(indices), SIDE, SIDE, 3), np.uint8)
        labels = np.zeros((len(indices), 1), np.float32)
        places = np.searchsorted(self._owned, indices[real])
        pixels[real] = self._cache.read_contents([self._digests[place].tobytes().hex() for place in places])
        labels[real, 0] = self._labels[places]
        seeds = tf.constant(_seeds(self.order.seed, epoch, indices))
        images = tf.constant(pixels)
        if rescaled or self._augment is not None:
            images = rescale(images)
        if self._augment is not None:
            images = self._augment(images, seeds + _APART)
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
