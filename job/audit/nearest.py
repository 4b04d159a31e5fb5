"""For each of many signatures the few likest others: exactly what comparing all pairs gives, without comparing all.

The signatures are sorted along their principal axis and compared block by block, each a matrix product. Two that are
alike lie near each other along any axis, so blocks that lie too far apart are skipped; so are those that could hold
nothing likelier than what a block has found already, and it looks at the nearest first. Signatures are whole numbers
whose products are exact in float32, whatever the order of summation, and equal products are told apart by place.

Trees of boxes or balls over more axes were measured and skip less: signatures of CT scans spread over about twenty
axes, and over that many the blocks' boxes meet nearly all others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Signatures = npt.NDArray[np.float32]
"""Whole numbers [n, d] as float32, each row of length `LENGTH` (but for rounding) or 0."""

LENGTH = 2048
"""The product of two signatures stays below 2**24, up to which float32 counts exactly."""

_BLOCK = 512
_ROOM = 40
"""Bits of a key for the place of the other signature; what is above them is the product."""

Keys = npt.NDArray[np.int64]


class _Sorted(NamedTuple):
    """Signatures in the order of where they lie along the axis, n of them in b blocks."""

    rows: Signatures
    """[n, d]"""
    places: npt.NDArray[np.int64]
    """[n], the row of each before it was sorted."""
    found_at: npt.NDArray[np.int64]
    """[n], the reverse: where each row is now."""
    low: npt.NDArray[np.float64]
    """[b], along the axis."""
    high: npt.NDArray[np.float64]
    """[b]"""


def nearest(plain: Signatures, mirrored: Signatures, most: int, least: float) -> Keys:
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
    axis = np.linalg.eigh(np.cov(plain.T, dtype=np.float64))[1][:, -1]
    own, others = _sorted(plain, axis), (_sorted(plain, axis), _sorted(mirrored, axis))
    length = max(float(np.square(rows, dtype=np.float64).sum(axis=1).max()) for rows in (plain, mirrored))
    pairs = []
    for block in range(len(own.low)):
        here = slice(block * _BLOCK, (block + 1) * _BLOCK)
        keys = np.zeros((len(own.rows[here]), most), np.int64)
        gaps = np.stack([np.maximum(own.low[block] - o.high, o.low - own.high[block]).clip(min=0) for o in others])
        # Half of what the squares of two lengths exceed that of their distance by is their product; 1 for rounding.
        bounds = length - np.square(gaps) / 2 + 1
        for flat in np.argsort(-bounds, axis=None, kind="stable"):
            flipped, other = divmod(int(flat), len(own.low))
            if bounds[flipped, other] < max(least * LENGTH**2, int(keys.min() >> _ROOM)):
                break
            _look(keys, own, here, others[flipped], slice(other * _BLOCK, (other + 1) * _BLOCK), flipped, least)
        rows, columns = np.nonzero(keys)
        found = keys[rows, columns] & ((1 << _ROOM) - 1)
        one, two = own.places[here][rows], found >> 1
        pairs.append(np.stack([np.minimum(one, two), np.maximum(one, two), found & 1], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _look(keys: Keys, own: _Sorted, here: slice, others: _Sorted, there: slice, flipped: int, least: float) -> None:
    """Compares a block with another and puts what is likelier than what the rows of `keys` hold into them."""
    product = own.rows[here] @ others.rows[there].T
    # Nothing is a copy of itself.
    itself = others.found_at[own.places[here]] - there.start
    inside = np.flatnonzero((itself >= 0) & (itself < product.shape[1]))
    product[inside, itself[inside]] = 0
    least_products = np.maximum(int(least * LENGTH**2), (keys.min(axis=1) >> _ROOM) - 1)
    better = product > least_products.astype(np.float32)[:, None]
    rows = np.flatnonzero(better.any(axis=1))
    if len(rows):
        known = others.places[there] * 2 + flipped
        found = np.where(better[rows], (product[rows].astype(np.int64) << _ROOM) | known, 0)
        whole, most = np.concatenate([keys[rows], found], axis=1), keys.shape[1]
        keys[rows] = np.partition(whole, whole.shape[1] - most, axis=1)[:, -most:]


def _sorted(signatures: Signatures, axis: npt.NDArray[np.float64]) -> _Sorted:
    along = signatures @ axis
    places = np.argsort(along, kind="stable")
    found_at = np.empty_like(places)
    found_at[places] = np.arange(len(places))
    starts = np.arange(0, len(places), _BLOCK)
    ends = np.minimum(starts + _BLOCK, len(places)) - 1
    return _Sorted(signatures[places], places, found_at, along[places][starts], along[places][ends])
