"""The quality gate lets through what reaches it and says why it stops the rest."""

from typing import Any

import pytest

from job.errors import UsageError
from job.quality_gate import check_gate

EVALUATION: dict[str, Any] = {
    "n": 203,
    "part": "test",
    "metrics": {
        "auc": {"value": 0.72, "low": 0.64, "high": 0.79},
        "brier": {"value": 0.22, "low": 0.2, "high": 0.25},
        "specificity": {"value": None, "low": None, "high": None},
        "accuracy": {"value": 0.6, "low": None, "high": None},
    },
    "shortcut": {"auc": {"value": 0.96, "low": 0.91, "high": 0.99}},
}


@pytest.mark.parametrize(
    "gate",
    [
        {},
        {"auc": 0.72},
        {"auc_lower_bound": 0.6},
        {"brier": 0.25},
        {"brier_upper_bound": 0.25},
        {"shortcut_margin": -1},
    ],
)
def test_what_is_reached_lets_the_version_through(gate: dict[str, float]) -> None:
    assert check_gate(gate, EVALUATION) == []


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ({"auc": 0.75}, "auc: 0.720, wanted at least 0.75"),
        ({"auc_lower_bound": 0.7}, "auc_lower_bound: 0.640, wanted at least 0.7"),
        ({"brier": 0.2}, "brier: 0.220, wanted at most 0.2"),
        ({"brier_upper_bound": 0.24}, "brier_upper_bound: 0.250, wanted at most 0.24"),
        ({"specificity": 0.0}, "specificity: not defined on the 203 scans of the part test"),
        ({"accuracy_lower_bound": 0.0}, "accuracy_lower_bound: not defined on the 203 scans of the part test"),
        (
            {"shortcut_margin": 0.0},
            "shortcut_margin: AUC 0.720 is -0.240 from the shortcut baseline's 0.960, wanted at least +0",
        ),
    ],
)
def test_what_is_missed_is_told(gate: dict[str, float], reason: str) -> None:
    assert check_gate(gate, EVALUATION) == [reason]


def test_every_miss_is_told_at_once() -> None:
    assert len(check_gate({"auc": 0.9, "auc_lower_bound": 0.7, "shortcut_margin": 0}, EVALUATION)) == 3


@pytest.mark.parametrize(
    ("key", "hint"), [("auc_lower", "auc_lower_bound"), ("brier_lower_bound", "brier_upper_bound"), ("zzz", "accuracy")]
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"unknown key {key}; .*{hint}"):
        check_gate({key: 1.0}, EVALUATION)
