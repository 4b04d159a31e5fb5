"""ROC, precision-recall and reliability curves with 95% bands from the bootstrap over groups; NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from job.metrics import BINS, Floats, group_codes, resampled

GRID = np.linspace(0, 1, 101)
"""Where bands are given."""


class Curve(NamedTuple):
    """A curve through its exact points, and its band on `GRID` (empty when there are fewer than two groups)."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


class Bin(NamedTuple):
    """One bin of a reliability diagram: its scans, their mean probability, and the share that is positive, with the
    95% interval of the share (None where it cannot be said)."""

    scans: int
    mean: float
    share: float
    low: float | None
    high: float | None


def roc(labels: ArrayLike, probabilities: ArrayLike, groups: Sequence[str], *, resamples: int = 500) -> Curve | None:
    """Sensitivity over 1 - specificity; None unless both classes are there. The band is pointwise at each x."""
    ranked = _ranked(labels, probabilities)
    if ranked is None:
        return None
    order, starts, positive = ranked
    x, y = _shares(np.ones((1, len(order))), starts, positive)
    bands = []
    for counts in _resampled(groups, resamples):
        fp, tp = _shares(counts[:, order], starts, positive)
        # Along a step the curve is upright: the last point at an x is its upper end.
        bands += [np.interp(GRID, a, b) for a, b in zip(fp, tp, strict=True) if not np.isnan(a[-1] + b[-1])]
    return Curve(x[0], y[0], *_band(bands))


def precision_recall(
    labels: ArrayLike, probabilities: ArrayLike, groups: Sequence[str], *, resamples: int = 500
) -> Curve | None:
    """Precision over recall (= sensitivity), as steps; None unless both classes are there.

    The precision at a recall is that at the highest threshold that reaches it, as in average precision.
    """
    ranked = _ranked(labels, probabilities)
    if ranked is None:
        return None
    order, starts, positive = ranked

    def curves(ordered: Floats) -> tuple[Floats, Floats]:
        tp = np.cumsum(np.add.reduceat(np.where(positive, ordered, 0), starts, axis=1), axis=1)
        every = np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return tp / tp[:, -1:], np.where(every > 0, tp / every, 1.0)

    recall, precision = curves(np.ones((1, len(order))))
    bands = []
    for counts in _resampled(groups, resamples):
        for r, p in zip(*curves(counts[:, order]), strict=True):
            if not np.isnan(r[-1]):
                bands.append(p[np.minimum(np.searchsorted(r, GRID, side="left"), len(r) - 1)])
    # Each precision holds from the recall before it, so that the area below is the average precision.
    x, y = np.r_[0, np.repeat(recall[0], 2)[:-1]], np.repeat(precision[0], 2)
    return Curve(x, y, *_band(bands))


def reliability(
    labels: ArrayLike, probabilities: ArrayLike, groups: Sequence[str], *, resamples: int = 500
) -> list[Bin]:
    """The bins of the expected calibration error that hold scans, in order of probability."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    codes = group_codes(groups)
    bins = np.minimum((p * BINS).astype(np.intp), BINS - 1)
    member = np.zeros((len(y), BINS))
    member[np.arange(len(y)), bins] = 1
    drawn = []
    if codes.max() > 0:
        for counts in resampled(codes, resamples, 0):
            with np.errstate(invalid="ignore"):
                drawn.append((counts @ (member * y[:, None])) / (counts @ member))
    shares = np.concatenate(drawn) if drawn else np.empty((0, BINS))
    found = []
    for b in range(BINS):
        inside = bins == b
        if inside.any():
            defined = shares[~np.isnan(shares[:, b]), b]
            low, high = np.percentile(defined, [2.5, 97.5]) if 2 * len(defined) > len(shares) > 0 else (None, None)
            found.append(
                Bin(
                    int(inside.sum()),
                    float(p[inside].mean()),
                    float(y[inside].mean()),
                    None if low is None else float(low),
                    None if high is None else float(high),
                )
            )
    return found


def _ranked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The order by falling probability, where each new probability starts in it, and which are positive; or None."""
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if len(np.unique(y)) < 2:
        return None
    order = np.argsort(-p, kind="stable")
    return order, np.flatnonzero(np.r_[True, np.diff(p[order]) != 0]), y[order] == 1


def _shares(ordered: Floats, starts: np.ndarray, positive: np.ndarray) -> tuple[Floats, Floats]:
    """False and true positive rates [r, points], from (0, 0) on; NaN for a resample of one class."""
    rates = []
    for counted in (np.where(positive, 0, ordered), np.where(positive, ordered, 0)):
        running = np.cumsum(np.add.reduceat(counted, starts, axis=1), axis=1)
        with np.errstate(invalid="ignore"):
            rates.append(np.hstack([np.zeros((len(running), 1)), running / running[:, -1:]]))
    return rates[0], rates[1]


def _resampled(groups: Sequence[str], resamples: int) -> Iterator[Floats]:
    codes = group_codes(groups)
    return resampled(codes, resamples, 0) if codes.max() > 0 else iter(())


def _band(curves: Sequence[Floats]) -> tuple[Floats, Floats]:
    if not curves:
        return np.empty(0), np.empty(0)
    low, high = np.percentile(np.stack(curves), [2.5, 97.5], axis=0)
    return low, high
