"""Several seeds in one command: the seeds, and what their figures come to."""

import numpy as np
import pytest

from job.cli import main
from job.errors import UsageError
from job.metrics import NAMES
from job.seeds import figure_spread, parse_seeds


def test_seeds_are_read_in_order() -> None:
    assert parse_seeds("2, 0,1") == [2, 0, 1]


@pytest.mark.parametrize("text", ["", "1", "1,1", "1,x", "-1,2", "0,4294967296", "1;2"])
def test_seeds_that_are_none_are_refused_before_anything_is_done(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="for example --seeds 0,1,2"):
        parse_seeds(text)


def test_the_command_refuses_them_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--seeds", "1,x", "--set", "data.root=nowhere"]) == 2
    assert capsys.readouterr().err.strip().splitlines() == [
        "covid-ct train: --seeds 1,x: write two or more different seeds, for example --seeds 0,1,2"
    ]


def test_spread_is_mean_and_standard_deviation_and_says_where_there_is_none() -> None:
    runs = [{name: {"value": value} for name in NAMES} for value in (0.5, 0.6, 0.8)]
    runs[1]["f1"] = {"value": None}
    found = figure_spread(runs)
    assert found["auc"]["mean"] == pytest.approx(np.mean([0.5, 0.6, 0.8]))
    assert found["auc"]["standard_deviation"] == pytest.approx(np.std([0.5, 0.6, 0.8], ddof=1))
    assert found["f1"] == {"mean": None, "standard_deviation": None, "values": [0.5, None, 0.8]}
