"""Curves against scikit-learn, and bands that hold what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from job.curves import GRID, precision_recall, reliability, roc
from job.metrics import figures


def scored(seed: int, n: int = 150) -> tuple[np.ndarray, np.ndarray, list[str]]:
    generator = np.random.default_rng(seed)
    labels = np.r_[0, 1, generator.integers(0, 2, n - 2)]
    probabilities = np.round(0.3 * labels + 0.7 * generator.random(n), 2)
    return labels, probabilities, [f"{i // 2}" for i in range(n)]


@pytest.mark.parametrize("seed", range(4))
def test_roc_goes_through_scikit_learns_points(seed: int) -> None:
    labels, probabilities, groups = scored(seed)
    curve = roc(labels, probabilities, groups, resamples=5)
    assert curve is not None
    x, y, _ = oracle.roc_curve(labels, probabilities, drop_intermediate=False)
    assert np.allclose(curve.x, x)
    assert np.allclose(curve.y, y)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_areas_below_the_curves_are_the_figures(seed: int) -> None:
    labels, probabilities, groups = scored(seed, 40)
    found = figures(labels, probabilities, groups, resamples=5)
    curve = roc(labels, probabilities, groups, resamples=5)
    assert curve is not None
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(found["auc"]["value"])
    curve = precision_recall(labels, probabilities, groups, resamples=5)
    assert curve is not None
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(found["average_precision"]["value"])


@pytest.mark.parametrize("kind", [roc, precision_recall])
def test_bands_are_around_the_curve_and_narrow_with_more_scans(kind: type) -> None:
    widths = []
    for n in (100, 1600):
        labels, probabilities, groups = scored(1, n)
        curve = kind(labels, probabilities, groups)
        assert (curve.low <= curve.high).all()
        assert len(curve.low) == len(curve.high) == len(GRID)
        widths.append((curve.high - curve.low)[20:80].mean())
    assert widths[1] < widths[0] / 2


def test_bins_hold_every_scan_once_and_give_the_calibration_error() -> None:
    labels, probabilities, groups = scored(2)
    bins = reliability(labels, probabilities, groups)
    assert sum(one.scans for one in bins) == len(labels)
    error = sum(one.scans * abs(one.mean - one.share) for one in bins) / len(labels)
    assert error == pytest.approx(figures(labels, probabilities, groups)["ece"]["value"])
    for one in bins:
        assert one.low is None or one.high is None or one.low <= one.share <= one.high


def test_one_class_has_no_curve_and_one_group_no_band() -> None:
    assert roc([1, 1], [0.1, 0.2], ["a", "b"]) is None
    assert precision_recall([0, 0], [0.1, 0.2], ["a", "b"]) is None
    curve = roc([0, 1], [0.1, 0.2], ["a", "a"])
    assert curve is not None
    assert len(curve.low) == 0
    assert reliability([0, 1], [0.1, 0.2], ["a", "a"])[0].low is None
