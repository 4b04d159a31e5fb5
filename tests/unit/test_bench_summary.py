"""What the speed comparison makes of its runs: medians, ratios, and the refusal of a speed-up that costs quality."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.machine import flops_per_image, weights
from benchmarks.summary import REFERENCE, comparisons, figures, refusals, spread, summarise
from job.settings import Model

PEAKS = {"product float32": 100.0, "product mixed_bfloat16": 400.0}


def run(peer, seconds, precision="float32", **changed):
    """A run of 100 images an epoch: a slow first epoch, then `seconds` each."""
    known = {
        "peer": peer,
        "precision": precision,
        "started": 1000.0,
        "first_step": 1004.0,
        "exported": 1000.0 + 10 * seconds,
        "images": 100,
        "train_seconds": [9.0, seconds, seconds],
        "epoch_seconds": [10.0, seconds + 0.5, seconds + 0.5],
        "loss": [0.7, 0.6, 0.5],
        "peak_memory": 1e9,
        "data_wait_share": 0.01,
        "test_auc": 0.7,
    }
    return known | changed


def rows(runs, refused=None):
    found = summarise(runs, PEAKS, 1e9, refused or {})
    return {(row["peer"], row["precision"]): row for row in found}


def test_training_is_counted_from_the_second_epoch_on_and_time_from_the_command():
    seen = figures(run("a", 2.0))
    assert seen["images_per_second"] == 50
    assert seen["seconds_per_epoch"] == 2.5
    assert seen["first_step_seconds"] == 4
    assert seen["wall_seconds"] == 20
    assert figures(run("a", 2.0, train_seconds=[4.0], epoch_seconds=[4.0]))["images_per_second"] == 25


@given(st.lists(st.floats(0.1, 100), min_size=1))
def test_a_row_has_the_median_and_both_ends_of_all_rounds(values):
    assert spread(values) == {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "n": len(values),
    }


def test_a_figure_that_one_round_lacks_is_not_reported():
    assert spread([1.0, None]) is None
    assert rows([run("a", 1.0), run("a", 1.0, peak_memory=None)])["a", "float32"]["peak_memory"] is None


def test_ratios_are_of_medians_against_the_missions_own_way_in_float32():
    runs = [run(REFERENCE, seconds) for seconds in (1.0, 2.0, 9.0)] + [run("ours", s) for s in (0.5, 0.4, 7.0)]
    runs.append(run(REFERENCE, 0.001, precision="mixed_bfloat16"))
    found = rows(runs)
    assert found["ours", "float32"]["times_reference"] == pytest.approx(2.0 / 0.5)
    assert found["ours", "float32"]["wall_of_reference"] == pytest.approx(0.5 / 2.0)
    assert found[REFERENCE, "float32"]["times_reference"] == 1
    assert rows([run("ours", 1.0)])["ours", "float32"]["times_reference"] is None


def test_the_share_of_the_bound_is_of_the_peak_in_the_same_precision():
    found = rows([run("ours", 2.0), run("ours", 2.0, precision="mixed_bfloat16")])
    # 50 images/s of 1 GFLOP each
    assert found["ours", "float32"]["share_of_product_peak"] == pytest.approx(0.5)
    assert found["ours", "mixed_bfloat16"]["share_of_product_peak"] == pytest.approx(0.125)


def test_a_refused_row_is_not_there_and_others_are():
    runs = [run("ours", 1.0), run("ours", 1.0, precision="mixed_bfloat16")]
    assert list(rows(runs, {"ours mixed_bfloat16": ["loss"]})) == [("ours", "float32")]


def test_comparisons_are_of_medians_and_only_of_rows_that_are_there():
    runs = [run(REFERENCE, 2.0), run("ours-1x2", 1.0), run("ours-solo", 0.9), run("ours-2x1", 1.25)]
    found = comparisons(summarise(runs, PEAKS, 1e9, {}))
    assert found == {
        "images/s, float32, against ImageDataGenerator in float32": pytest.approx(2.0),
        "images/s, float32, 2 workers x 1 thread against 1 x 2": pytest.approx(0.8),
        "seconds per epoch, float32, with Ray against without": pytest.approx(1.5 / 1.4),
        "command to version, float32, against ImageDataGenerator in float32": pytest.approx(0.5),
    }
    assert comparisons(summarise(runs, PEAKS, 1e9, {"ours-1x2 float32": ["loss"]})) == {}


AUC = {"value": 0.7, "low": 0.6, "high": 0.8}
# Three seeds of five epochs; the greatest difference between two at one epoch is 0.04.
CURVES = [[0.70, 0.60, 0.50, 0.42, 0.30], [0.71, 0.62, 0.48, 0.40, 0.32], [0.69, 0.61, 0.52, 0.41, 0.31]]
SEEDS = [{"loss": loss, "auc": AUC} for loss in CURVES]


def changed(epoch, loss):
    return [*CURVES[0][: epoch - 1], loss, *CURVES[0][epoch:]]


@pytest.mark.parametrize("loss", [*CURVES, changed(4, 0.44), changed(1, 0.69)])
def test_a_curve_like_those_of_the_seeds_passes(loss):
    assert refusals(SEEDS, {"loss": loss, "auc": AUC}) == []


@pytest.mark.parametrize(
    ("loss", "auc", "reason"),
    [
        (changed(5, 0.40), 0.7, "epoch 5: loss 0.4000"),
        (changed(3, 0.60), 0.7, "epoch 3: loss"),
        (changed(4, 0.30), 0.7, "epoch 4: loss"),
        (changed(5, math.nan), 0.7, "epoch 5: loss nan"),
        ([value + 0.02 for value in CURVES[0]], 0.7, "mean loss"),
        (CURVES[0], 0.59, "AUC 0.590"),
        (CURVES[0], 0.81, "AUC 0.810"),
        (CURVES[0], math.nan, "AUC nan"),
        (CURVES[0][:4], 0.7, "4 epochs"),
    ],
)
def test_a_speed_up_that_changes_loss_or_auc_is_refused_with_the_reason(loss, auc, reason):
    found = refusals(SEEDS, {"loss": loss, "auc": {"value": auc}})
    assert any(reason in one for one in found)


def test_without_float32_runs_nothing_may_be_reported():
    assert refusals([], {"loss": [0.7], "auc": AUC})


def test_flops_are_those_of_the_products_that_the_network_is_made_of():
    # One 2x2 convolution of 224x224x3 to 223x223x5, pooled by 3 to 74x74x5, then dense layers of 7 and 1.
    forward = 2 * (223 * 223 * 5 * 12 + 74 * 74 * 5 * 7 + 7)
    assert flops_per_image(Model(filters=(5,), dense=7)) == {
        "forward": forward,
        "training": 3 * forward - 2 * 223 * 223 * 5 * 12,
    }


def test_weights_are_kernels_and_biases():
    assert weights(Model(filters=(5,), dense=7)) == 5 * (12 + 1) + 7 * (74 * 74 * 5 + 1) + (7 + 1)
