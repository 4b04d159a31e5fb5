"""For each of many signatures the few likest others: exactly what comparing all pairs gives, mostly without doing so.

Signatures are cut into blocks of near ones (a k-d tree along principal axes). How alike any two of two blocks can be
is bounded by the distance of the blocks' boxes, so that a block looks at others in the order of that bound, and stops
where none can hold what is likelier than what it has. Within two blocks it is one matrix product, so signatures that
no order helps with cost what comparing all pairs costs. Signatures are small whole numbers: products are exact in
float32, whatever the order of summation, and equal ones are told apart by their place.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Signatures = npt.NDArray[np.float32]
"""Whole numbers [n, d] as float32, each row of length `LENGTH` (but for rounding) or 0."""

LENGTH = 2048
"""The product of two signatures stays below 2**24, up to which float32 counts exactly."""

_BLOCK = 1024
_ROOM = 40
"""Bits of a key for the place of the other signature; what is above them is the product."""


class _Blocks(NamedTuple):
    """Boxes of b blocks along the principal axes."""

    low: npt.NDArray[np.float64]
    """[b, d]"""
    high: npt.NDArray[np.float64]
    """[b, d]"""
    length: npt.NDArray[np.float64]
    """[b], the square of the longest signature in each."""


def nearest(plain: Signatures, mirrored: Signatures, most: int, least: float) -> npt.NDArray[np.int64]:
    """Candidates for copies: rows (a, b, is b mirrored) int64 [m, 3] with a < b, in order.

    A pair is one if its correlation is above `least` and it is among the `most` likest of a or of b, over all others
    as they are and mirrored. Of equally like ones, those further back come first.

    Args:
        plain: the signatures [n, d].
        mirrored: those of the mirrored pictures [n, d]; mirroring both of two pictures must not change their product.
        most: per signature.
        least: a correlation, in (0, 1).
    """
    if len(plain) < 2:
        return np.empty((0, 3), np.int64)
    axes = np.linalg.eigh(plain.T.astype(np.float64) @ plain)[1]
    order, starts = _order(plain @ axes.astype(np.float32))
    both = tuple(each[order] for each in (plain, mirrored))
    boxes = [_boxes(each, axes, starts) for each in both]
    floor = least * LENGTH**2
    pairs = []
    for block, (top, end) in enumerate(pairwise(starts)):
        keys = np.zeros((end - top, most), np.int64)
        bounds = np.stack([_bounds(boxes[0], block, each) for each in boxes])
        for flat in np.argsort(-bounds, axis=None, kind="stable"):
            flipped, other = divmod(int(flat), len(starts) - 1)
            if bounds[flipped, other] < max(floor, float((keys.min(axis=1) >> _ROOM).min())):
                break
            low, high = starts[other], starts[other + 1]
            product = both[0][top:end] @ both[flipped][low:high].T
            if other == block:
                np.fill_diagonal(product, 0)  # nothing is a copy of itself
            _keep(keys, product, order[low:high] * 2 + flipped, floor)
        rows, columns = np.nonzero(keys)
        places = keys[rows, columns] & ((1 << _ROOM) - 1)
        one, other_one = order[top:end][rows], places >> 1
        pairs.append(np.stack([np.minimum(one, other_one), np.maximum(one, other_one), places & 1], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _keep(keys: npt.NDArray[np.int64], product: Signatures, places: npt.NDArray[np.int64], floor: float) -> None:
    """Puts what is likelier than what the rows of `keys` hold into them."""
    better = product > floor
    better &= product >= (keys.min(axis=1) >> _ROOM)[:, None]
    rows = np.flatnonzero(better.any(axis=1))
    if len(rows):
        found = np.where(better[rows], (product[rows].astype(np.int64) << _ROOM) | places, 0)
        whole = np.concatenate([keys[rows], found], axis=1)
        most = keys.shape[1]
        keys[rows] = np.partition(whole, whole.shape[1] - most, axis=1)[:, -most:]


def _order(along: Signatures) -> tuple[npt.NDArray[np.int64], list[int]]:
    """An order of the rows in which near ones are in one block, and where the blocks start (with the end of the last):
    halved where they are spread most until they are small."""
    order, starts = np.arange(len(along)), [0]

    def halve(low: int, high: int) -> None:
        if high - low <= _BLOCK:
            starts.append(high)
            return
        rows = order[low:high]
        axis = int(along[rows].var(axis=0).argmax())
        middle = (high - low) // 2
        order[low:high] = rows[np.argpartition(along[rows, axis], middle)]
        halve(low, low + middle)
        halve(low + middle, high)

    halve(0, len(along))
    return order, starts


def _boxes(signatures: Signatures, axes: npt.NDArray[np.float64], starts: list[int]) -> _Blocks:
    turned = [signatures[low:high].astype(np.float64) @ axes for low, high in pairwise(starts)]
    return _Blocks(
        np.stack([rows.min(axis=0) for rows in turned]),
        np.stack([rows.max(axis=0) for rows in turned]),
        np.array([np.square(rows).sum(axis=1).max() for rows in turned]),
    )


def _bounds(own: _Blocks, block: int, others: _Blocks) -> npt.NDArray[np.float64]:
    """The largest product that a signature of `block` can have with one of each other block, [b]: half of what the
    squares of their lengths exceed that of their distance by; and 1 for rounding."""
    apart = np.maximum(own.low[block] - others.high, others.low - own.high[block]).clip(min=0)
    bounds: npt.NDArray[np.float64] = (own.length[block] + others.length - np.square(apart).sum(axis=1)) / 2 + 1
    return bounds
