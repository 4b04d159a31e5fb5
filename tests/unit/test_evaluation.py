"""`evaluation.json`: what it holds, and that the chosen threshold comes from validation alone."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.evaluation import Validation, evaluate, threshold_for_sensitivity
from job.metrics import NAMES, figures
from job.scan import Scan
from tests.unit.scans import made, population


def scored(seed: int = 0, n: int = 200) -> tuple[list[Scan], list[Scan], list[float]]:
    """Scans to fit on, scans of the test part, and a probability for each of the latter."""
    scans = population(n, seed, leak=True)
    test = [scan for scan in scans if scan.split == "test"]
    generator = np.random.default_rng(seed)
    return [s for s in scans if s.split != "test"], test, [0.3 * s.label + 0.7 * generator.random() for s in test]


def test_it_holds_what_the_contract_says_and_is_json() -> None:
    fitted_on, test, probabilities = scored()
    found = evaluate(test, probabilities, fitted_on=fitted_on, split="grouped")
    assert list(found) == [
        *("split", "part", "n", "groups", "threshold"),
        *("metrics", "chosen_threshold", "by_format", "shortcut", "probabilities"),
    ]
    assert (found["split"], found["part"], found["n"], found["threshold"]) == ("grouped", "test", len(test), 0.5)
    assert found["groups"] == len({scan.group for scan in test})
    assert tuple(found["metrics"]) == NAMES
    assert set(found["shortcut"]) == {"auc", "accuracy", "by_property"}
    assert found["probabilities"] == {scan.path: p for scan, p in zip(test, probabilities, strict=True)}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_figures_by_format_are_those_of_its_scans_alone() -> None:
    fitted_on, test, probabilities = scored()
    found = evaluate(test, probabilities, fitted_on=fitted_on, split="grouped")["by_format"]
    assert set(found) == {"PNG", "JPEG"}
    assert sum(of_format["n"] for of_format in found.values()) == len(test)
    rows = [i for i, scan in enumerate(test) if scan.format == "PNG"]
    alone = figures([test[i].label for i in rows], [probabilities[i] for i in rows], [test[i].group for i in rows])
    assert {name: found["PNG"][name] for name in NAMES} == alone


def test_the_chosen_threshold_does_not_depend_on_the_scored_scans() -> None:
    fitted_on, test, probabilities = scored()
    generator = np.random.default_rng(1)
    validation = Validation(fitted_on, [0.2 * s.label + 0.6 * generator.random() for s in fitted_on])
    one = evaluate(test, probabilities, fitted_on=fitted_on, split="grouped", validation=validation)
    other = evaluate(
        test[::2], [1 - p for p in probabilities[::2]], fitted_on=fitted_on, split="grouped", validation=validation
    )
    chosen = one["chosen_threshold"]
    assert chosen["value"] == other["chosen_threshold"]["value"] != 0.5
    assert chosen["validation"]["sensitivity"]["value"] >= chosen["wanted_sensitivity"] == 0.9
    assert chosen["metrics"]["auc"] == one["metrics"]["auc"]
    assert chosen["metrics"]["sensitivity"] != one["metrics"]["sensitivity"]


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.floats(0.01, 1))
def test_the_chosen_threshold_is_the_highest_that_reaches_the_wanted_sensitivity(
    pairs: list[tuple[int, float]], wanted: float
) -> None:
    validation = Validation([made(label=label) for label, _ in pairs], [p for _, p in pairs])
    chosen = threshold_for_sensitivity(validation, wanted)
    positives = [p for label, p in pairs if label == 1]
    if not positives:
        assert chosen is None
        return

    def sensitivity(threshold: float) -> float:
        return sum(p >= threshold for p in positives) / len(positives)

    assert chosen is not None
    assert sensitivity(chosen) >= wanted - 1e-6
    assert all(sensitivity(p) < wanted for p in positives if p > chosen)


def test_a_part_of_one_class_is_evaluated_as_far_as_it_goes() -> None:
    fitted_on, test, _ = scored()
    positives = [scan for scan in test if scan.label == 1]
    found: Any = evaluate(positives, [0.8] * len(positives), fitted_on=fitted_on, split="grouped")
    assert found["metrics"]["auc"]["value"] is None
    assert found["metrics"]["sensitivity"]["value"] == 1.0
    json.dumps(found, allow_nan=False)


def test_as_many_probabilities_as_scans_are_needed() -> None:
    fitted_on, test, probabilities = scored()
    with pytest.raises(ValueError, match="need one each"):
        evaluate(test, [*probabilities[1:], 0.5, 0.5], fitted_on=fitted_on, split="grouped")
