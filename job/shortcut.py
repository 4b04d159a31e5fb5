"""What a model reaches that sees no pixel: a random forest on each file's size, shape, format and mode.

A pixel model whose AUC does not pass this one's may have learned how each class was saved instead of what it shows.
(Geirhos et al. 2020, "Shortcut learning in deep neural networks", arXiv:2004.07780.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from job.metrics import Figure, Floats, figures
from job.scan import Scan

NUMBERS: dict[str, Callable[[Scan], float]] = {
    "width": lambda scan: scan.width,
    "height": lambda scan: scan.height,
    "aspect": lambda scan: scan.width / scan.height,
    "bytes_per_pixel": lambda scan: scan.size / (scan.width * scan.height),
}
"""Properties that are numbers."""

KINDS: dict[str, Callable[[Scan], str]] = {"format": lambda scan: scan.format, "mode": lambda scan: scan.mode}
"""Properties that are one of a few words."""

PROPERTIES = (*NUMBERS, *KINDS)

TREES = 100
MOST_PER_TREE = 10_000


def shortcut_baseline(fitted_on: Sequence[Scan], scored: Sequence[Scan], *, seed: int = 0) -> dict[str, Any]:
    """AUC and accuracy of forests fitted on some scans and scored on others, from the files' properties alone.

    Returns `{"auc": Figure, "accuracy": Figure, "by_property": {property: {"auc": Figure, "accuracy": Figure}}}`:
    all `PROPERTIES` together, then each alone. Where the scans to fit on are not of both classes, every value is None.
    """
    together = property_probabilities(fitted_on, scored, PROPERTIES, seed=seed)
    alone = {name: property_probabilities(fitted_on, scored, (name,), seed=seed) for name in PROPERTIES}
    return {
        **_two(scored, together, seed),
        "by_property": {name: _two(scored, probabilities, seed) for name, probabilities in alone.items()},
    }


def shortcut_cross_validated(
    scans: Sequence[Scan], *, folds: int = 5, by_property: bool = True, seed: int = 0
) -> dict[str, Any]:
    """The same figures over all scans, each scored by forests that saw no scan of its group; without `by_property`,
    for all properties together only.

    Folds are stratified as far as the groups allow; fewer when a class has fewer groups than `folds`.
    """
    labels = np.array([scan.label for scan in scans])
    groups = np.array([scan.group for scan in scans])
    alone = PROPERTIES if by_property else ()
    folds = min([folds, *(len({scan.group for scan in scans if scan.label == label}) for label in (0, 1))])
    if folds < 2:
        return {**_two(scans, None, seed), "by_property": {name: _two(scans, None, seed) for name in alone}}
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [
        ([scans[i] for i in fit], [scans[i] for i in held], held)
        for fit, held in splitter.split(labels, labels, groups)
    ]

    def out_of_fold(names: Sequence[str]) -> Floats | None:
        probabilities = np.empty(len(scans))
        for fitted_on, held_out, index in parts:
            fold = property_probabilities(fitted_on, held_out, names, seed=seed)
            if fold is None:
                return None
            probabilities[index] = fold
        return probabilities

    return {
        **_two(scans, out_of_fold(PROPERTIES), seed),
        "by_property": {name: _two(scans, out_of_fold((name,)), seed) for name in alone},
    }


def property_probabilities(
    fitted_on: Sequence[Scan], scored: Sequence[Scan], names: Sequence[str], *, seed: int = 0
) -> Floats | None:
    """The positive class's probability [scored] by a forest on the properties `names`; None without both classes."""
    if len({scan.label for scan in fitted_on}) < 2:
        return None
    from sklearn.ensemble import RandomForestClassifier

    words = {name: sorted({KINDS[name](scan) for scan in fitted_on}) for name in names if name in KINDS}
    # A tree learns no more from more files than this, and takes longer.
    most = MOST_PER_TREE if len(fitted_on) > MOST_PER_TREE else None
    forest = RandomForestClassifier(TREES, max_samples=most, random_state=seed)
    forest.fit(_table(fitted_on, names, words), [scan.label for scan in fitted_on])
    return np.asarray(forest.predict_proba(_table(scored, names, words))[:, 1], dtype=np.float64)


def _table(scans: Sequence[Scan], names: Sequence[str], words: dict[str, list[str]]) -> Floats:
    """A row a scan: numbers as they are, words as one 0/1 column each (a word not seen in fitting is all zeros)."""
    rows = []
    for scan in scans:
        row = [NUMBERS[name](scan) for name in names if name in NUMBERS]
        row += [float(KINDS[name](scan) == word) for name in names if name in KINDS for word in words[name]]
        rows.append(row)
    return np.array(rows, dtype=np.float64)


def _two(scored: Sequence[Scan], probabilities: Floats | None, seed: int) -> dict[str, Figure]:
    if probabilities is None or not len(scored):
        none: Figure = {"value": None, "low": None, "high": None}
        return {"auc": none, "accuracy": none}
    every = figures([s.label for s in scored], probabilities, [s.group for s in scored], seed=seed)
    return {"auc": every["auc"], "accuracy": every["accuracy"]}
