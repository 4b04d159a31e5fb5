"""What a model reaches that sees no pixel: a random forest on each file's size, shape, format and mode.

A pixel model whose AUC does not pass this one's may have learned how each class was saved instead of what it shows.
(Geirhos et al. 2020, "Shortcut learning in deep neural networks", arXiv:2004.07780.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from job.metrics import Figure, Floats, figures
from job.scan import Scan

Told = Callable[[Scan], Mapping[str, float | str]]
"""A scan to what is known of it: by property a number, or one of a few words."""


def told_by_file(scan: Scan) -> dict[str, float | str]:
    """What a file tells without its pixels."""
    return {
        "width": scan.width,
        "height": scan.height,
        "aspect": scan.width / scan.height,
        "bytes_per_pixel": scan.size / (scan.width * scan.height),
        "format": scan.format,
        "mode": scan.mode,
    }


PROPERTIES = ("width", "height", "aspect", "bytes_per_pixel", "format", "mode")
"""The names in `told_by_file`, in its order."""

TREES = 100
MOST_PER_TREE = 10_000


def shortcut_baseline(
    fitted_on: Sequence[Scan],
    scored: Sequence[Scan],
    *,
    seed: int = 0,
    names: Sequence[str] = PROPERTIES,
    told: Told = told_by_file,
) -> dict[str, Any]:
    """AUC and accuracy of forests fitted on some scans and scored on others, from the properties `names` of what is
    `told` of each: by default those of the files alone.

    Returns `{"auc": Figure, "accuracy": Figure, "by_property": {property: {"auc": Figure, "accuracy": Figure}}}`:
    all properties together, then each alone. Where the scans to fit on are not of both classes, every value is None.
    """
    together = property_probabilities(fitted_on, scored, names, seed=seed, told=told)
    alone = {name: property_probabilities(fitted_on, scored, (name,), seed=seed, told=told) for name in names}
    return {
        **_two(scored, together, seed),
        "by_property": {name: _two(scored, probabilities, seed) for name, probabilities in alone.items()},
    }


def shortcut_cross_validated(
    scans: Sequence[Scan],
    *,
    folds: int = 5,
    by_property: bool = True,
    seed: int = 0,
    names: Sequence[str] = PROPERTIES,
    told: Told = told_by_file,
) -> dict[str, Any]:
    """The same figures over all scans, each scored by forests that saw no scan of its group; without `by_property`,
    for all properties together only.

    Folds are stratified as far as the groups allow; fewer when a class has fewer groups than `folds`.
    """
    labels = np.array([scan.label for scan in scans])
    groups = np.array([scan.group for scan in scans])
    alone = names if by_property else ()
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
            fold = property_probabilities(fitted_on, held_out, names, seed=seed, told=told)
            if fold is None:
                return None
            probabilities[index] = fold
        return probabilities

    return {
        **_two(scans, out_of_fold(names), seed),
        "by_property": {name: _two(scans, out_of_fold((name,)), seed) for name in alone},
    }


def property_probabilities(
    fitted_on: Sequence[Scan],
    scored: Sequence[Scan],
    names: Sequence[str],
    *,
    seed: int = 0,
    told: Told = told_by_file,
) -> Floats | None:
    """The positive class's probability [scored] by a forest on the properties `names`; None without both classes."""
    labels = [scan.label for scan in fitted_on]
    if len(set(labels)) < 2:
        return None
    known, asked = ([{name: told(scan)[name] for name in names} for scan in scans] for scans in (fitted_on, scored))
    columns = _columns(known, names)
    if not columns:  # The same for all: nothing to learn.
        return np.full(len(scored), 0.5)
    from sklearn.ensemble import RandomForestClassifier

    # A tree learns no more from more files than this, and takes longer.
    most = MOST_PER_TREE if len(fitted_on) > MOST_PER_TREE else None
    forest = RandomForestClassifier(TREES, max_samples=most, random_state=seed)
    forest.fit(_table(known, columns), labels)
    return np.asarray(forest.predict_proba(_table(asked, columns))[:, 1], dtype=np.float64)


Row = Mapping[str, float | str]


def _columns(rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, str | None]]:
    """What to make columns of: a number as it is (None), each word as a 0/1 column of its own; none for what is the
    same in all rows. A word that fitting did not see is all zeros later."""
    values = {name: {row[name] for row in rows} for name in names}
    return [
        (name, word)
        for name in names
        if len(values[name]) > 1
        for word in sorted({value if isinstance(value, str) else None for value in values[name]}, key=str)
    ]


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str | None]]) -> Floats:
    return np.array(
        [[float(row[name] == word) if word is not None else float(row[name]) for name, word in columns] for row in rows]
    )


def _two(scored: Sequence[Scan], probabilities: Floats | None, seed: int) -> dict[str, Figure]:
    if probabilities is None or not len(scored):
        none: Figure = {"value": None, "low": None, "high": None}
        return {"auc": none, "accuracy": none}
    every = figures([s.label for s in scored], probabilities, [s.group for s in scored], seed=seed)
    return {"auc": every["auc"], "accuracy": every["accuracy"]}
