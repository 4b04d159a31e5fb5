"""Which scan stands where: the order of training as a pure function of (seed, epoch, step).

Dealing, once per run: a seeded permutation deals the scans to as many *slots* as the global batch has places, like
cards. Shuffling, every epoch: each slot shuffles its own scans, and step s takes the s-th scan of every slot. So every
epoch shows every scan once, in batches that are new each time, and the batch of a step depends on nothing but the
seed, the epoch and the step. As many neighbouring slots as go through the network at a time are a *micro-batch*, and a
worker owns every W-th micro-batch: whatever the number of workers, the same scans are computed together, and a worker's
disk holds only the scans of its own slots.

After mosaicml/streaming's idea of canonical nodes (docs/source/fundamentals, "elastic determinism").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

PADDING = -1
"""Stands where a batch has no scan; it is computed with weight 0."""


@dataclass(frozen=True)
class Order:
    """The order of `n` scans in global batches of `batch_size`."""

    n: int
    batch_size: int
    seed: int
    micro_batch: int = 1
    """Scans that stay together, on whichever worker."""

    @property
    def steps(self) -> int:
        """Steps in an epoch; the last batch may have fewer scans than `batch_size`."""
        return -(-self.n // self.batch_size)

    def count(self, step: int) -> int:
        """Scans in the global batch of a step, padding not counted."""
        return min(self.batch_size, self.n - step * self.batch_size)

    def batch(self, epoch: int, step: int) -> Indices:
        """The scans of one global batch: int64 [batch_size], `PADDING` at the end of the last batch."""
        whole: Indices = self._epoch(epoch, np.arange(self.batch_size))[step]
        return whole

    def share(self, epoch: int, worker: int, workers: int, first_step: int = 0) -> Iterator[Indices]:
        """One worker's scans at each step from `first_step` on: int64 [local batch], whole micro-batches, as many for
        every worker (`PADDING` where there are no scans for them), and fewer for all in a last batch that is short."""
        scans = self._epoch(epoch, self._slots(worker, workers))
        for step in range(first_step, self.steps):
            yield scans[step, : self._local(self.count(step), workers) * self.micro_batch]

    def owned(self, worker: int, workers: int) -> Indices:
        """All scans that a worker will ever need, int64 [m], in no telling order."""
        slots = self._slots(worker, workers)
        dealt = self._dealt()[:, slots[slots != PADDING]]
        scans: Indices = dealt[dealt != PADDING]
        return scans

    def _slots(self, worker: int, workers: int) -> Indices:
        micro_batches = np.arange(self._local(self.batch_size, workers)) * workers + worker
        slots = (micro_batches[:, None] * self.micro_batch + np.arange(self.micro_batch)).ravel()
        return np.where(slots < self.batch_size, slots, PADDING)

    def _local(self, count: int, workers: int) -> int:
        """Micro-batches that each of the workers computes of a batch of so many scans."""
        return -(-count // (self.micro_batch * workers))

    def _dealt(self) -> Indices:
        """Scan of [round, slot]; the last round may be short."""
        cards = np.full(self.steps * self.batch_size, PADDING, np.int64)
        cards[: self.n] = _generator(self.seed, "deal").permutation(self.n)
        return cards.reshape(self.steps, self.batch_size)

    def _epoch(self, epoch: int, slots: Indices) -> Indices:
        """Scan of [step, place] for the given slots."""
        dealt = self._dealt()
        order = np.full((self.steps, len(slots)), PADDING, np.int64)
        for place, slot in enumerate(slots):
            if slot != PADDING:
                column = dealt[:, slot]
                column = column[column != PADDING]
                order[: len(column), place] = _generator(self.seed, "shuffle", epoch, int(slot)).permutation(column)
        return order


def _generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Random numbers for one purpose and place alone, whatever was drawn before."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *purpose.encode(), *place])))
