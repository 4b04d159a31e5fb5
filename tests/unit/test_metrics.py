"""Figures against scikit-learn, a bootstrap done the slow way, and what cannot be said."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from job.metrics import BINS, NAMES, differences, figures, group_codes, resampled


def scans(seed: int, n: int = 120, per_group: int = 3, levels: int = 40) -> tuple[Any, Any, list[str]]:
    """Labels, probabilities with ties, and groups."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    probabilities = np.clip(np.round((labels * 0.3 + generator.random(n) * 0.7) * levels) / levels, 0, 1)
    return labels, probabilities, [f"g{i // per_group}" for i in range(n)]


def calibration_error(labels: Any, probabilities: Any) -> float:
    total = 0.0
    for b in range(BINS):
        inside = [i for i, p in enumerate(probabilities) if min(int(p * BINS), BINS - 1) == b]
        if inside:
            total += len(inside) * abs(np.mean(probabilities[inside]) - np.mean(labels[inside]))
    return total / len(labels)


def expected(labels: Any, probabilities: Any, threshold: float) -> dict[str, float]:
    called = probabilities >= threshold
    return {
        "accuracy": oracle.accuracy_score(labels, called),
        "auc": oracle.roc_auc_score(labels, probabilities),
        "average_precision": oracle.average_precision_score(labels, probabilities),
        "f1": oracle.f1_score(labels, called),
        "sensitivity": oracle.recall_score(labels, called),
        "specificity": oracle.recall_score(labels, called, pos_label=0),
        "brier": oracle.brier_score_loss(labels, probabilities),
        "ece": calibration_error(labels, probabilities),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_figures_are_scikit_learns(seed: int, threshold: float) -> None:
    labels, probabilities, groups = scans(seed)
    found = figures(labels, probabilities, groups, threshold, resamples=10)
    assert tuple(found) == NAMES
    assert {name: figure["value"] for name, figure in found.items()} == pytest.approx(
        expected(labels, probabilities, threshold), abs=1e-12
    )


def test_intervals_are_those_of_a_bootstrap_done_one_resample_at_a_time() -> None:
    labels, probabilities, groups = scans(1, n=60, per_group=4)
    found = figures(labels, probabilities, groups, resamples=200, seed=7)
    (counts,) = resampled(group_codes(groups), 200, 7)
    drawn = []
    for row in counts.astype(int):
        index = np.repeat(np.arange(60), row)
        drawn.append(expected(labels[index], probabilities[index], 0.5))
    for name in NAMES:
        low, high = np.percentile([one[name] for one in drawn], [2.5, 97.5])
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((low, high), abs=1e-12), name


def test_resamples_keep_groups_whole_and_draw_as_many_groups_as_there_are() -> None:
    codes = group_codes(["b", "a", "b", "c", "a", "d"])
    counts = np.concatenate(list(resampled(codes, 500, 0)))
    assert counts.shape == (500, 6)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3, 5]].sum(axis=1) == 4).all()
    assert counts.mean() == pytest.approx(1, abs=0.05)


def test_interval_is_wider_when_scans_come_in_groups() -> None:
    labels, probabilities, _ = scans(3, n=400)
    order = np.argsort(probabilities)
    alone = figures(labels, probabilities, [str(i) for i in range(400)])["accuracy"]
    grouped_codes = np.empty(400, dtype=int)
    grouped_codes[order] = np.arange(400) // 20
    together = figures(labels, probabilities, [str(i) for i in grouped_codes])["accuracy"]

    def width(figure: Any) -> float:
        return float(figure["high"] - figure["low"])

    assert width(together) > 1.5 * width(alone)


def test_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        labels = generator.integers(0, 2, 150)
        right = generator.random(150) < 0.7
        found = figures(labels, np.where(right, labels, 1 - labels), [str(i) for i in range(150)], resamples=400)
        low, high = found["accuracy"]["low"], found["accuracy"]["high"]
        assert low is not None
        assert high is not None
        inside += low <= 0.7 <= high
    assert 180 <= inside <= 199


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_figure_is_a_share_or_none_and_is_json(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    probabilities = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    groups = data.draw(st.lists(st.sampled_from("abcdef"), min_size=n, max_size=n))
    threshold = data.draw(st.floats(0, 1))
    found = figures(labels, probabilities, groups, threshold, resamples=50)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for figure in found.values():
        for part in figure.values():
            assert part is None or -1e-9 <= part <= 1 + 1e-9
        if figure["low"] is not None and figure["high"] is not None:
            assert figure["low"] <= figure["high"]


@given(st.integers(0, 10_000), st.floats(0.1, 5))
@settings(max_examples=30, deadline=None)
def test_ranking_figures_do_not_change_when_probabilities_are_stretched(seed: int, power: float) -> None:
    labels, probabilities, groups = scans(seed, n=40, levels=20)
    plain = figures(labels, probabilities, groups, resamples=50)
    bent = figures(labels, probabilities**power, groups, resamples=50)
    for name in ("auc", "average_precision"):
        assert plain[name] == pytest.approx(bent[name])


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_swapping_the_classes_mirrors_the_figures(seed: int) -> None:
    labels, probabilities, groups = scans(seed, n=40, levels=33)
    plain = figures(labels, probabilities, groups, resamples=20)
    swapped = figures(1 - labels, 1 - probabilities, groups, resamples=20)
    assert swapped["auc"]["value"] == pytest.approx(plain["auc"]["value"])
    assert swapped["sensitivity"]["value"] == pytest.approx(plain["specificity"]["value"])
    assert swapped["brier"]["value"] == pytest.approx(plain["brier"]["value"])


def test_one_class_has_no_auc_and_says_what_it_can() -> None:
    found = figures([1, 1, 1, 1], [0.9, 0.8, 0.2, 0.7], list("abcd"))
    assert found["auc"] == {"value": None, "low": None, "high": None}
    assert found["specificity"]["value"] is None
    assert found["sensitivity"]["value"] == 0.75
    assert found["sensitivity"]["low"] is not None


def test_one_group_has_values_and_no_interval() -> None:
    found = figures([0, 1, 1], [0.1, 0.9, 0.4], ["a", "a", "a"])
    assert found["auc"] == {"value": 1.0, "low": None, "high": None}


def test_auc_interval_leaves_out_resamples_of_one_class() -> None:
    # Three groups, one of them positive: 30% of the resamples have no positive scan and 4% no negative one.
    labels, probabilities, groups = [1, 0, 0], [0.5, 0.2, 0.8], ["a", "b", "c"]
    found = figures(labels, probabilities, groups)
    assert found["auc"] == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_auc_has_no_interval_when_most_resamples_have_one_class() -> None:
    # Two groups of one class each: half of the resamples, give or take, lack one; this seed has fewer than half.
    drawn = [figures([1, 0], [0.9, 0.1], ["a", "b"], resamples=101, seed=seed)["auc"]["low"] for seed in range(20)]
    assert None in drawn
    assert 1.0 in drawn


def test_differences_are_paired() -> None:
    labels, probabilities, groups = scans(4, n=200)
    better = np.clip(probabilities + 0.1 * (2 * labels - 1), 0, 1)
    found = differences(labels, probabilities, better, groups)
    before, after = figures(labels, probabilities, groups), figures(labels, better, groups)
    for name in NAMES:
        assert found[name]["value"] == pytest.approx(after[name]["value"] - before[name]["value"])
    assert found["auc"]["low"] > 0
    assert found["auc"]["high"] - found["auc"]["low"] < before["auc"]["high"] - before["auc"]["low"]
    same = differences(labels, probabilities, probabilities, groups)
    assert same["auc"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    labels, probabilities, groups = scans(2)
    assert figures(labels, probabilities, groups, seed=1) == figures(labels, probabilities, groups, seed=1)
    assert figures(labels, probabilities, groups, seed=1) != figures(labels, probabilities, groups, seed=2)


def test_many_scans_are_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities, groups = scans(5)
    whole = figures(labels, probabilities, groups, resamples=64)
    monkeypatch.setattr("job.metrics._CHUNK", 120 * 16)
    assert figures(labels, probabilities, groups, resamples=64) == whole


@pytest.mark.parametrize(
    ("labels", "probabilities", "groups"),
    [([], [], []), ([1], [0.5, 0.5], ["a"]), ([2], [0.5], ["a"]), ([1], [1.5], ["a"]), ([1], [float("nan")], ["a"])],
)
def test_wrong_input_is_refused(labels: Any, probabilities: Any, groups: Any) -> None:
    with pytest.raises(ValueError, match=r"need one each|0 or 1|in \[0, 1\]"):
        figures(labels, probabilities, groups)
