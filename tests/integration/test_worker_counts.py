"""The number of workers changes no bit: processes as Ray Train would start them, under the strategy."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift import train
from job import settings
from tests.training_support import configured


def assert_the_same(config: settings.Settings, counts: list[int], folder: Path) -> None:
    """Weights, optimizer and figures after every epoch, of each number of workers and the first."""
    found = [train(config, count, folder / str(count), folder / "cache") for count in counts]
    assert sorted(found[0]) == list(range(1, config.training.epochs + 1))
    for states in found[1:]:
        assert sorted(states) == sorted(found[0])
        for epoch, state in states.items():
            alone = found[0][epoch]
            assert [_figures(line) for line in state.history] == [_figures(line) for line in alone.history]
            for mine, theirs in zip(
                [*state.weights, *state.optimizer], [*alone.weights, *alone.optimizer], strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)


def _figures(line: dict[str, float]) -> list[float]:
    return [line[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_uneven_shares_change_no_bit(root, tmp_path, precision):
    # 46 scans in batches of 13: micro-batches that the workers do not divide, and that are not full.
    config = configured(
        root, "training.epochs=2", "training.batch_size=13", f"training.precision={precision}", "model.dropout=0.3",
        "training.ema_momentum=0.9",
        "data.augment={rotation_range: 10, shear_range: 5, zoom_range: 0.1, horizontal_flip: true}",
    )  # fmt: skip
    assert_the_same(config, [1, 3, 4], tmp_path)


@pytest.mark.timeout(300)
def test_1_2_and_4_workers_are_the_same_on_the_real_scans(covid_ct, tmp_path):
    assert_the_same(settings.load(None, [f"data.root={covid_ct}", "training.epochs=1"]), [1, 2, 4], tmp_path)
