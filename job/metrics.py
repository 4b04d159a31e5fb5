"""Figures of a binary classifier with 95% intervals from a bootstrap over groups; NumPy only.

Scans of one patient or paper are not independent, so the bootstrap draws whole groups with replacement (a cluster
bootstrap; Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8) and takes the 2.5th and
97.5th percentile. A resample only changes how often each scan counts, so all resamples are computed at once from
matrices of counts [resamples, scans].

What cannot be said is None: a figure that is not defined (AUC without both classes, sensitivity without a positive
scan), and the interval when there are fewer than two groups or when the figure is defined in fewer than half of the
resamples. Otherwise a resample in which a figure is not defined is left out of that figure's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NAMES = ("accuracy", "auc", "average_precision", "f1", "sensitivity", "specificity", "brier", "ece")
"""The figures, in the order in which they are shown."""

BINS = 10
"""Equal bins of probability in the expected calibration error and in reliability diagrams."""

_CHUNK = 4_000_000
"""Most counts held at once: 32 MB a matrix, however many scans there are."""


class Figure(TypedDict):
    """A value and the ends of its 95% interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None


def figures(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: Sequence[str],
    threshold: float = 0.5,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Figure]:
    """The figures `NAMES` over n scans.

    Args:
        labels: [n], 1 for the positive class and 0 for the negative one.
        probabilities: [n], of the positive class, in [0, 1].
        groups: [n], the patient or paper of each scan.
        threshold: a scan is called positive from this probability on.
        resamples: of the bootstrap.
        seed: the same seed gives the same intervals.

    Average precision is the sum of precision times the gain in recall (no interpolation), the Brier score the mean
    squared error of the probability, the expected calibration error (Guo et al. 2017, arXiv:1706.04599, on the
    positive class) the mean over `BINS` equal bins, weighted by their scans, of |mean probability - share of positive
    scans|; resampling adds noise to it, so its interval lies high.

    Raises:
        ValueError: no scans, unequal lengths, labels other than 0 and 1, probabilities outside [0, 1].
    """
    y, p, codes = _checked(labels, probabilities, groups)
    return _with_intervals(_tables(y, p, threshold), codes, resamples, seed)


def differences(
    labels: ArrayLike,
    probabilities: ArrayLike,
    others: ArrayLike,
    groups: Sequence[str],
    threshold: float = 0.5,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Figure]:
    """How much better (or worse) two models are on the same scans: `figures` of `others` minus those of
    `probabilities`. The bootstrap is paired: each resample scores both, so what is hard for both cancels out."""
    y, p, codes = _checked(labels, probabilities, groups)
    _, q, _ = _checked(labels, others, groups)
    one, other = _tables(y, p, threshold), _tables(y, q, threshold)

    def gap(counts: Floats) -> dict[str, Floats]:
        before, after = one(counts), other(counts)
        return {name: after[name] - before[name] for name in NAMES}

    return _with_intervals(gap, codes, resamples, seed)


def resampled(codes: NDArray[np.intp], resamples: int, seed: int) -> Iterator[Floats]:
    """How often each scan counts in each resample over groups: matrices [some resamples, n], `resamples` rows in all.

    Args:
        codes: [n], the number of each scan's group; the groups are 0, 1, ...
        resamples: how many.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    count = int(codes.max()) + 1
    step = max(1, _CHUNK // len(codes))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(0, count, size=(rows, count))
        drawn += np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, codes].astype(np.float64)


def group_codes(groups: Sequence[str]) -> NDArray[np.intp]:
    """The number of each scan's group, [n]: 0, 1, ... in the groups' alphabetical order."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].reshape(-1).astype(np.intp)


def _checked(
    labels: ArrayLike, probabilities: ArrayLike, groups: Sequence[str]
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape or len(y) != len(groups) or not len(y):
        raise ValueError(
            f"labels {y.shape}, probabilities {p.shape} and {len(groups)} groups: need one each of n > 0 scans"
        )
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    return y, p, group_codes(groups)


def _with_intervals(
    tables: Callable[[Floats], dict[str, Floats]], codes: NDArray[np.intp], resamples: int, seed: int
) -> dict[str, Figure]:
    value = {name: float(column[0]) for name, column in tables(np.ones((1, len(codes)))).items()}
    drawn: dict[str, list[Floats]] = {name: [] for name in NAMES}
    if codes.max() > 0:
        for counts in resampled(codes, resamples, seed):
            for name, column in tables(counts).items():
                drawn[name].append(column)
    return {name: _figure(value[name], drawn[name]) for name in NAMES}


def _tables(y: Floats, p: Floats, threshold: float) -> Callable[[Floats], dict[str, Floats]]:
    """A function from counts [r, n] to the figures, each [r]; NaN where a figure is not defined."""
    called = p >= threshold
    columns = np.stack([y * called, (1 - y) * called, y, 1 - y, (p - y) ** 2], axis=1)
    order = np.argsort(-p, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(p[order]) != 0])
    positive = y[order] > 0
    bins = np.minimum((p * BINS).astype(np.intp), BINS - 1)
    gaps = np.zeros((len(y), BINS))
    gaps[np.arange(len(y)), bins] = p - y

    def table(counts: Floats) -> dict[str, Floats]:
        total = counts.sum(axis=1)
        hits, alarms, positives, negatives, squares = (counts @ columns).T
        ordered = counts[:, order]
        tp = np.add.reduceat(np.where(positive, ordered, 0), starts, axis=1)
        fp = np.add.reduceat(np.where(positive, 0, ordered), starts, axis=1)
        above_tp, above_fp = np.cumsum(tp, axis=1), np.cumsum(fp, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            # A negative scan is outranked by the positives above it, and by half of those that tie with it.
            auc = (fp * (above_tp - tp / 2)).sum(axis=1) / (positives * negatives)
            precision = np.divide(above_tp, above_tp + above_fp, out=np.zeros_like(tp), where=above_tp > 0)
            return {
                "accuracy": (hits + negatives - alarms) / total,
                "auc": auc,
                "average_precision": (tp * precision).sum(axis=1) / positives,
                "f1": 2 * hits / (hits + alarms + positives),
                "sensitivity": hits / positives,
                "specificity": (negatives - alarms) / negatives,
                "brier": squares / total,
                "ece": np.abs(counts @ gaps).sum(axis=1) / total,
            }

    return table


def _figure(value: float, drawn: Sequence[Floats]) -> Figure:
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    every = np.concatenate(drawn) if drawn else np.empty(0)
    defined = every[~np.isnan(every)]
    if not len(defined) or 2 * len(defined) < len(every):
        return {"value": value, "low": None, "high": None}
    low, high = np.percentile(defined, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}
