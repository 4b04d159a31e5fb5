"""Which scans are the same picture: byte for byte, or rescaled, recompressed, mirrored, thinly cropped.

Each scan is read once for a signature of 8 x 8 gray values. Pairs whose signatures correlate are candidates, and
`job.audit.align` decides on their pixels. Comparing all signatures is quadratic, but a matrix product (a minute for
100,000 scans on two cores, less than reading them takes), and misses nothing that a hash with buckets might.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from job.audit.align import SIDE, Likeness, gray, likeness
from job.scan import Scan

Read = Callable[[str], bytes]
"""Path below the data root to the encoded image."""

_SIGNATURE = 8
_SMALL = 64
_LEAST_SIGNATURE = 0.93
"""On COVID-CT, copies with up to 3% cropped off each side correlate by 0.934 and more."""
_MOST_CANDIDATES = 5
"""Per scan, the likest first: a scan among many neighbouring slices has hundreds, a copy comes before them."""
_LEAST_SMALL = Likeness(0.97, 0.75)
"""After alignment of 64 x 64 pixels, below which the larger pictures are not looked at."""
_BLOCK = 2048


class Pair(NamedTuple):
    """Two scans that are the same picture."""

    one: Scan
    other: Scan
    exact: bool
    """Byte for byte."""
    mirrored: bool
    detail: float
    """Correlation of their detail after alignment; 1 for exact ones."""


def find_duplicates(scans: Sequence[Scan], read: Read | None) -> list[Pair]:
    """All pairs, sorted by path; without `read`, only those of equal files.

    Of equal files, each is paired with the first one only, which stands for all of them among the near duplicates.
    """
    firsts: dict[str, Scan] = {}
    pairs = []
    for scan in sorted(scans, key=lambda scan: scan.path):
        first = firsts.setdefault(scan.sha256, scan)
        if first is not scan:
            pairs.append(Pair(first, scan, exact=True, mirrored=False, detail=1.0))
    if read is not None:
        pairs += near_duplicates(list(firsts.values()), read)
    return sorted(pairs, key=lambda pair: (pair.one.path, pair.other.path))


def contradicting(pairs: Sequence[Pair]) -> list[tuple[Scan, ...]]:
    """Sets of scans that are all the same picture, by way of each other, and have both labels; sorted by path."""
    sets: dict[str, dict[str, Scan]] = {}
    for pair in pairs:
        joined = {scan.path: scan for scan in (pair.one, pair.other)}
        for path in tuple(joined):
            joined |= sets.get(path, {})
        for path in joined:
            sets[path] = joined
    found = {min(held): tuple(held[path] for path in sorted(held)) for held in sets.values()}
    return [held for _, held in sorted(found.items()) if len({scan.label for scan in held}) > 1]


def near_duplicates(scans: Sequence[Scan], read: Read) -> list[Pair]:
    """Pairs of scans with different bytes that show the same picture; `one` comes before `other` in `scans`."""
    small = np.empty((len(scans), _SMALL, _SMALL), np.uint8)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="audit") as pool:
        for row, seen in zip(small, pool.map(lambda scan: gray(read(scan.path), _SMALL), scans), strict=True):
            row[:] = np.round(seen)
    found = []
    for a, b, mirrored in candidates(small):
        first = _likeness(small[a].astype(np.float32), small[b].astype(np.float32), mirrored)
        if first.whole >= _LEAST_SMALL.whole and first.detail >= _LEAST_SMALL.detail:
            one, other = (gray(read(scans[index].path), SIDE) for index in (a, b))
            alike = _likeness(one, other, mirrored)
            if alike.same:
                found.append(Pair(scans[a], scans[b], False, mirrored, alike.detail))
    best: dict[tuple[str, str], Pair] = {}
    for pair in found:  # A symmetric picture may match both ways.
        key = pair.one.path, pair.other.path
        if key not in best or best[key].detail < pair.detail:
            best[key] = pair
    return list(best.values())


def candidates(small: npt.NDArray[np.uint8]) -> list[tuple[int, int, bool]]:
    """Pairs (a < b, mirrored) of gray pictures uint8 [n, 64, 64] whose signatures are alike, each among the few likest
    of a or of b."""
    plain = _signatures(small)
    likest: dict[int, list[tuple[float, int, bool]]] = defaultdict(list)
    for mirrored, others in ((False, plain), (True, _signatures(small[:, :, ::-1]))):
        for a, b, alike in _alike(plain, others):
            for one, other in ((a, b), (b, a)):
                held = likest[one]
                held.append((alike, other, mirrored))
                if len(held) > 4 * _MOST_CANDIDATES:
                    held.sort(reverse=True)
                    del held[_MOST_CANDIDATES:]
    found = set()
    for one, held in likest.items():
        for _, other, mirrored in sorted(held, reverse=True)[:_MOST_CANDIDATES]:
            found.add((min(one, other), max(one, other), mirrored))
    return sorted(found)


def _signatures(small: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Unit vectors float32 [n, 64] without the mean brightness; a picture of one shade is all zeros, like nothing."""
    n, step = len(small), _SMALL // _SIGNATURE
    blocks = small.reshape(n, _SIGNATURE, step, _SIGNATURE, step).mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    blocks -= blocks.mean(axis=1, keepdims=True)
    sizes = np.linalg.norm(blocks, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.divide(blocks, sizes, out=np.zeros_like(blocks), where=sizes > 1)
    return unit


def _alike(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    """Every a < b for which row a of `one` and row b of `other` correlate, and by how much; block by block."""
    for top in range(0, len(one), _BLOCK):
        rows = one[top : top + _BLOCK]
        for left in range(top, len(other), _BLOCK):
            product = rows @ other[left : left + _BLOCK].T
            for i, j in zip(*np.nonzero(product > _LEAST_SIGNATURE), strict=True):
                a, b = top + int(i), left + int(j)
                if a < b:
                    yield a, b, float(product[i, j])


def _likeness(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], mirrored: bool) -> Likeness:
    return likeness(one, other[:, ::-1] if mirrored else other)
