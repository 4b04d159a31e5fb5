"""Runs side by side: what differs, by how much, and whether that is more than chance."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from job.evaluation import evaluate
from job.report.compare import compare_html, setting_differences, spread
from job.report.run import Run
from job.settings import Settings
from tests.unit.scans import population
from tests.unit.test_report import Outline


def made_run(name: str, skill: float, seed: int = 0, n: int = 240) -> Run:
    scans = population(n, leak=True)
    generator = np.random.default_rng(7)
    test = [scan for scan in scans if scan.split == "test"]
    given = [float(skill * scan.label + (1 - skill) * generator.random()) for scan in test]
    config: dict[str, Any] = Settings().to_dict()
    config["training"]["seed"] = seed
    metrics = [{"epoch": e, "loss": 0.5, "val_loss": 0.6, "val_accuracy": 0.5 + skill / 2} for e in (1, 2)]
    evaluation = evaluate(test, given, fitted_on=[s for s in scans if s.split == "train"], split="grouped")
    return Run(name, config, scans, metrics, evaluation, {"seconds": {"training": 3.0}})


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [made_run("first", 0.1), made_run("second <2>", 0.4, seed=1), made_run("third", 0.1, seed=2, n=160)]


def test_figures_stand_side_by_side_with_mean_and_spread(runs: list[Run]) -> None:
    text = Outline(compare_html(runs)).text
    for run in runs:
        assert f"{run.evaluation['metrics']['auc']['value']:.3f}" in text
    values = [run.evaluation["metrics"]["auc"]["value"] for run in runs]
    assert spread(runs, "auc") == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in text
    assert "second <2>" in text


def test_differences_are_told_only_for_runs_that_scored_the_same_scans(runs: list[Run]) -> None:
    text = Outline(compare_html(runs)).text
    gap = runs[1].evaluation["metrics"]["auc"]["value"] - runs[0].evaluation["metrics"]["auc"]["value"]
    assert f"second <2> {gap:+.3f} (" in text
    assert "Scored on other scans than first, so not comparable: third." in text


def test_only_settings_that_differ_are_listed(runs: list[Run]) -> None:
    assert setting_differences(runs) == {"training.seed": [0, 1, 2]}
    assert setting_differences([runs[0], replace(runs[0], name="same")]) == {}
    without = replace(runs[0], config={**runs[0].config, "data": {}})
    assert setting_differences([runs[0], without])["data.root"] == ["data", None]


def test_one_value_has_no_spread(runs: list[Run]) -> None:
    assert spread(runs[:1], "auc") is None
