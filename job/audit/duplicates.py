"""Which scans are the same picture: byte for byte, or rescaled, recompressed, mirrored, thinly cropped.

Each scan is read once for a signature of 8 x 8 gray values. Pairs whose signatures correlate are candidates, and
`job.audit.align` decides on their pixels. The search for candidates (`job.audit.nearest`) is exact: it misses nothing
that comparing all pairs would find.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from job.audit.align import SIDE, Likeness, gray, likeness
from job.audit.nearest import LENGTH, Signatures, nearest
from job.errors import UserError
from job.files import ahead
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
_AT_ONCE = 4096


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
    if not scans:
        return []
    threads = os.cpu_count() or 1
    with tempfile.TemporaryFile(prefix="covid-ct-audit-") as file:
        # On disk, so that memory does not grow with the scans. Written before it is mapped: a full disk is then an
        # error, and no signal that ends the process.
        _keep_small(scans, read, threads, file)
        small = np.memmap(file, np.uint8, "r", shape=(len(scans), _SMALL, _SMALL))

        def compare(candidate: tuple[int, int, bool]) -> Pair | None:
            a, b, mirrored = candidate
            first = _likeness(small[a].astype(np.float32), small[b].astype(np.float32), mirrored)
            if first.whole < _LEAST_SMALL.whole or first.detail < _LEAST_SMALL.detail:
                return None
            one, other = (gray(read(scans[index].path), SIDE) for index in (a, b))
            alike = _likeness(one, other, mirrored)
            return Pair(scans[a], scans[b], False, mirrored, alike.detail) if alike.same else None

        found = [pair for _, pair in ahead(compare, candidates(small), threads) if pair is not None]
    best: dict[tuple[str, str], Pair] = {}
    for pair in found:  # A symmetric picture may match both ways.
        key = pair.one.path, pair.other.path
        if key not in best or best[key].detail < pair.detail:
            best[key] = pair
    return list(best.values())


def _keep_small(scans: Sequence[Scan], read: Read, threads: int, file: IO[bytes]) -> None:
    """Writes the scans' small pictures to a file, 4 KB each, one after the other."""
    try:
        for _, seen in ahead(lambda scan: gray(read(scan.path), _SMALL), scans, threads):
            file.write(np.round(seen).astype(np.uint8).tobytes())
        file.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"{tempfile.gettempdir()}: no room for {4 * len(scans):,} KB; make some or set TMPDIR"
        ) from error


def candidates(small: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int, bool]]:
    """Pairs (a < b, mirrored) of gray pictures uint8 [n, 64, 64] whose signatures are alike, each among the few likest
    of a or of b; in order."""
    plain = signatures(small)
    mirrored = plain.reshape(-1, _SIGNATURE, _SIGNATURE)[:, :, ::-1].reshape(plain.shape)
    for a, b, flipped in nearest(plain, mirrored, _MOST_CANDIDATES, _LEAST_SIGNATURE):
        yield int(a), int(b), bool(flipped)


def signatures(small: npt.NDArray[np.uint8]) -> Signatures:
    """What `job.audit.nearest` compares, [n, 64]: the means of 8 x 8 blocks without the mean brightness, as whole
    numbers of one length; a picture of one shade is all zeros, like nothing."""
    n, step = len(small), _SMALL // _SIGNATURE
    whole = np.empty((n, _SIGNATURE**2), np.float32)
    for top in range(0, n, _AT_ONCE):
        some = small[top : top + _AT_ONCE]
        blocks = some.reshape(-1, _SIGNATURE, step, _SIGNATURE, step).mean(axis=(2, 4), dtype=np.float32)
        rows = blocks.reshape(len(some), -1)
        rows -= rows.mean(axis=1, keepdims=True)
        sizes = np.linalg.norm(rows, axis=1, keepdims=True)
        whole[top : top + _AT_ONCE] = np.divide(LENGTH * rows, sizes, out=np.zeros_like(rows), where=sizes > 1)
    return np.round(whole, out=whole)


def _likeness(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], mirrored: bool) -> Likeness:
    return likeness(one, other[:, ::-1] if mirrored else other)
