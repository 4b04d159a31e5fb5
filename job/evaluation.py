"""A run's `evaluation.json`: figures on scans that training never saw, beside what needs no pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from job.metrics import Figure, figures
from job.scan import Scan
from job.shortcut import shortcut_baseline


class Validation(NamedTuple):
    """What a threshold is chosen on: the scans of the part val and the model's probability for each, [n]."""

    scans: Sequence[Scan]
    probabilities: Sequence[float]


def evaluate(
    scored: Sequence[Scan],
    probabilities: Sequence[float],
    *,
    fitted_on: Sequence[Scan],
    split: str,
    part: str = "test",
    threshold: float = 0.5,
    validation: Validation | None = None,
    wanted_sensitivity: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of `evaluation.json`.

    Args:
        scored: the n scans of the part, at least one.
        probabilities: [n], of the positive class, as the model gives them.
        fitted_on: the scans of train and val, which the shortcut baseline is fitted on.
        split: published, grouped or images, as in the settings.
        part: the name of the part in `scored`.
        threshold: a scan is called positive from this probability on.
        validation: with it, a second threshold is chosen on these scans alone (never on `scored`) for
            `wanted_sensitivity`, and the figures at that threshold stand under "chosen_threshold".
        wanted_sensitivity: in (0, 1].
        seed: of the bootstrap and the baseline.

    Figures that cannot be said are None (see `job.metrics`); the result has no NaN and is JSON as it is.
    """
    chosen = None if validation is None else threshold_for_sensitivity(validation, wanted_sensitivity)
    by_format = {}
    for name in sorted({scan.format for scan in scored}):
        rows = [index for index, scan in enumerate(scored) if scan.format == name]
        of_format, given = [scored[i] for i in rows], [probabilities[i] for i in rows]
        by_format[name] = {"n": len(rows), **_figures(of_format, given, threshold, seed)}
    return {
        "split": split,
        "part": part,
        "n": len(scored),
        "groups": len({scan.group for scan in scored}),
        "threshold": float(threshold),
        "metrics": _figures(scored, probabilities, threshold, seed),
        "chosen_threshold": None
        if validation is None or chosen is None
        else {
            "wanted_sensitivity": wanted_sensitivity,
            "value": chosen,
            "validation": _figures(validation.scans, validation.probabilities, chosen, seed),
            "metrics": _figures(scored, probabilities, chosen, seed),
        },
        "by_format": by_format,
        "shortcut": shortcut_baseline(fitted_on, scored, seed=seed),
        "probabilities": {scan.path: float(p) for scan, p in zip(scored, probabilities, strict=True)},
    }


def threshold_for_sensitivity(validation: Validation, wanted: float) -> float | None:
    """The highest probability that, as a threshold, reaches the sensitivity `wanted` on the validation scans; None
    if there is no positive scan among them."""
    positives = [p for scan, p in zip(*validation, strict=True) if scan.label == 1]
    if not positives:
        return None
    descending = np.sort(np.asarray(positives, dtype=np.float64))[::-1]
    # Rounded before the ceiling: 0.9 of 10 scans are 9, and not 10 because 0.9 * 10 is 9.000000000000002 somewhere.
    needed = max(1, int(np.ceil(round(wanted * len(positives), 9))))
    return float(descending[needed - 1])


def _figures(scans: Sequence[Scan], probabilities: Sequence[float], threshold: float, seed: int) -> dict[str, Figure]:
    return figures([s.label for s in scans], probabilities, [s.group for s in scans], threshold, seed=seed)
