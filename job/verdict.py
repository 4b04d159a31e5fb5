"""What the figures of an evaluation mean, in a sentence or two of plain English; for the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from job.metrics import Figure

DISCLAIMER = "This is not a medical device. No diagnosis or treatment may rest on it."

CANONICAL_NOTE = (
    "The network saw canonical scans (data.canonical): gray, the middle square, one sharpness and one compression. So "
    "it cannot have used mode or shape, and hardly size or format; letters, arrows and the crop are still there."
)
"""What `data.canonical` means for the comparison with the shortcut baseline."""

TITLES = {
    "accuracy": "Accuracy",
    "auc": "ROC AUC",
    "average_precision": "Average precision",
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier": "Brier score (lower is better)",
    "ece": "Expected calibration error (lower is better)",
}
"""What the figures are called where people read them."""


class Verdict(NamedTuple):
    """A sentence, and whether it warns."""

    text: str
    warns: bool


def verdict(evaluation: Mapping[str, Any]) -> Verdict:
    """Whether the AUC says that the network learned what the scans show."""
    auc: Figure = evaluation["metrics"]["auc"]
    shortcut: Figure = evaluation["shortcut"]["auc"]
    scans = f"{evaluation['n']} scans of {evaluation['groups']} patients or papers"
    if auc["value"] is None:
        return Verdict(f"No AUC can be given on {scans}: they are not of both classes.", True)
    told = f"AUC {auc['value']:.3f}"
    if auc["low"] is None or auc["high"] is None:
        return Verdict(f"{told} on {scans}: too few patients or papers for an interval. Trust it little.", True)
    told += f" (95% interval {auc['low']:.3f} to {auc['high']:.3f}) on {scans}"
    if auc["low"] <= 0.5:
        return Verdict(f"{told}: not distinguishable from chance.", True)
    if shortcut["value"] is None:
        return Verdict(f"{told}. There is no shortcut baseline to compare it with.", True)
    other = (
        f"a model that sees no pixel, only each file's size, shape, format and mode, reaches {shortcut['value']:.3f}"
    )
    if auc["value"] <= shortcut["value"]:
        return Verdict(
            f"{told}. But {other}: this figure does not show that the network learned what the scans show.", True
        )
    if auc["low"] <= shortcut["value"]:
        return Verdict(f"{told}; {other}. The difference lies within the interval.", True)
    if shortcut["low"] is not None and shortcut["low"] > 0.5:
        return Verdict(f"{told}; {other}. The files give part of the class away (see the shortcut baseline).", True)
    return Verdict(f"{told}; {other}, which is near chance.", False)
