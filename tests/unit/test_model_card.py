"""The model card and the verdict: made from a run, true to it, and never rosier than its figures."""

from typing import Any

import markdown
import numpy as np
import pytest

from job.evaluation import Validation, evaluate
from job.model_card import model_card
from job.scan import Scan
from job.settings import Settings
from job.verdict import verdict
from tests.unit.scans import population


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    return population(240, leak=True)


@pytest.fixture(scope="module")
def evaluation(scans: list[Scan]) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    test = [scan for scan in scans if scan.split == "test"]
    given = [float(0.3 * scan.label + 0.7 * generator.random()) for scan in test]
    train = [scan for scan in scans if scan.split == "train"]
    return evaluate(test, given, fitted_on=train, split="grouped", validation=Validation(test, given))


def test_the_card_tells_the_figures_the_baseline_and_what_it_is_not(
    scans: list[Scan], evaluation: dict[str, Any]
) -> None:
    card = model_card(Settings().to_dict(), evaluation, scans, run="mine")
    auc, shortcut = evaluation["metrics"]["auc"], evaluation["shortcut"]["auc"]
    assert "not a medical device" in card
    assert f"| ROC AUC | {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}) |" in card
    assert f"{shortcut['value']:.3f} ({shortcut['low']:.3f} to {shortcut['high']:.3f})" in card
    assert "licence" in card
    assert "Every scan with mode RGBA was of one class" in card
    assert "`CT_COVID`" in card
    train = [scan for scan in scans if scan.split == "train"]
    assert f"| train | {sum(s.label for s in train)} |" in card


def test_the_card_says_so_when_the_scans_were_canonical(scans: list[Scan], evaluation: dict[str, Any]) -> None:
    config = Settings().to_dict()
    assert "canonical" not in model_card(config, evaluation, scans, run="mine")
    config["data"]["canonical"] = True
    assert "saw canonical scans" in model_card(config, evaluation, scans, run="mine")


def test_the_card_says_what_training_did_beyond_the_plain_recipe(scans: list[Scan], evaluation: dict[str, Any]) -> None:
    config = Settings().to_dict()
    assert "seed 0." in model_card(config, evaluation, scans, run="mine")
    config["model"]["dropout"], config["training"]["ema_momentum"] = 0.3, 0.995
    config["data"]["augment"] = {"zoom_range": 0.1}
    said = "with dropout 0.3 and a moving average of the weights (momentum 0.995) and augmentation (zoom_range)."
    assert said in model_card(config, evaluation, scans, run="mine")


def test_the_card_is_markdown_whose_tables_render(scans: list[Scan], evaluation: dict[str, Any]) -> None:
    card = model_card(Settings().to_dict(), evaluation, scans, run="a|b <script> `x`")
    page = markdown.markdown(card, extensions=["tables"])
    assert page.count("<table>") == 3
    assert page.count("<h1>") == 1
    assert "<script>" not in page


def told(auc: Any, shortcut: Any) -> Any:
    def figure(values: Any) -> dict[str, float | None]:
        return dict(zip(("low", "value", "high"), values, strict=True))

    metrics, baseline = {"auc": figure(auc)}, {"auc": figure(shortcut)}
    return verdict({"n": 100, "groups": 50, "metrics": metrics, "shortcut": baseline})


@pytest.mark.parametrize(
    ("auc", "shortcut", "words", "warns"),
    [
        ((None, None, None), (0.4, 0.5, 0.6), "No AUC can be given", True),
        ((None, 0.8, None), (0.4, 0.5, 0.6), "too few patients", True),
        ((0.45, 0.55, 0.65), (0.4, 0.5, 0.6), "not distinguishable from chance", True),
        ((0.65, 0.72, 0.8), (None, None, None), "no shortcut baseline", True),
        ((0.65, 0.72, 0.8), (0.9, 0.96, 0.99), "does not show that the network learned", True),
        ((0.65, 0.72, 0.8), (0.6, 0.70, 0.8), "lies within the interval", True),
        ((0.85, 0.92, 0.95), (0.6, 0.70, 0.8), "part of the class away", True),
        ((0.85, 0.92, 0.95), (0.4, 0.52, 0.6), "near chance", False),
    ],
)
def test_the_verdict_follows_from_the_intervals(auc: Any, shortcut: Any, words: str, warns: bool) -> None:
    said = told(auc, shortcut)
    assert words in said.text
    assert said.warns is warns
