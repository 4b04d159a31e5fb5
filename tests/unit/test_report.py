"""A run's report: whole, self-contained, readable by a machine and by a screen reader, and right."""

import io
import itertools
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from job.errors import UserError
from job.evaluation import Validation, evaluate
from job.report.html import BARS, table
from job.report.page import Explained, Picture, report_html, worst_mistakes
from job.report.run import Run, load_run
from job.report.svg import Axis
from job.scan import to_lines
from job.settings import Settings
from job.storage import LocalStorage
from tests.unit.scans import population

VOID = {"meta", "img", "br", "line", "circle", "polyline", "polygon"}


class Outline(HTMLParser):
    """Checks that elements close in order; keeps what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """An element ends: the innermost one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text."""
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.words).split())


def jpeg(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (8, 8), shade).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture(scope="module")
def run() -> Run:
    """A run whose scans, figures and settings are made up, with a name and a path that must be escaped."""
    scans = population(240, leak=True)
    generator = np.random.default_rng(0)
    test = [scan for scan in scans if scan.split == "test"]
    train = [scan for scan in scans if scan.split == "train"]
    given = [float(0.25 * scan.label + 0.75 * generator.random()) for scan in test]
    evaluation = evaluate(test, given, fitted_on=train, split="grouped", validation=Validation(test, given))
    metrics = [
        {"epoch": e, "loss": 0.7 / e, "accuracy": 0.5 + e / 20, "val_loss": 0.7, "val_accuracy": 0.5, "seconds": 1.0}
        for e in range(1, 6)
    ]
    config = Settings().to_dict()
    config["data"]["root"] = "<script>alert(1)</script>"
    summary = {"versions": {"python": "3.11"}, "seconds": {"training": 12.3}}
    return Run("a <b> & c", config, scans, metrics, json.loads(json.dumps(evaluation)), summary)


@pytest.fixture(scope="module")
def outline(run: Run) -> Outline:
    scan, _ = worst_mistakes(run)[0]
    return Outline(report_html(run, Explained({scan.path: Picture(jpeg(10), jpeg(20))}, 0.25)))


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(outline: Outline) -> None:
    assert not outline.all("script")
    assert not outline.all("link")
    for tag, attributes in outline.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("data:image/", "#")), value
    assert "<script>alert(1)</script>" in outline.text


def test_headings_links_and_images_can_be_read_aloud(outline: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in outline.all("a"):
        assert link["href"] is not None
        assert link["href"][1:] in ids
    assert all(image["alt"] for image in outline.all("img"))
    for drawing in outline.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and drawing.get("aria-label"))
    assert outline.all("html")[0]["lang"] == "en"


def test_it_tells_the_figures_with_their_intervals_beside_the_baseline(run: Run, outline: Outline) -> None:
    auc = run.evaluation["metrics"]["auc"]
    shortcut = run.evaluation["shortcut"]["auc"]
    assert f"ROC AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in outline.text
    assert f"{shortcut['value']:.3f} ({shortcut['low']:.3f} to {shortcut['high']:.3f})" in outline.text
    assert "not a medical device" in outline.text
    assert "training.learning_rate 0.001" in outline.text
    assert "training 12.3" in outline.text


def test_the_confusion_matrix_counts_the_scans(run: Run, outline: Outline) -> None:
    scored = run.scored()
    hits = sum(p >= 0.5 and scan.label == 1 for scan, p in scored)
    misses = sum(p < 0.5 and scan.label == 1 for scan, p in scored)
    share = hits / (hits + misses)
    assert f"is CT_COVID {hits} {share:.0%} {misses} {1 - share:.0%}" in outline.text


def test_the_worst_mistakes_are_the_surest_wrong_calls(run: Run) -> None:
    found = worst_mistakes(run, 5)
    sure = [abs(p - 0.5) for _, p in found]
    assert sure == sorted(sure, reverse=True)
    assert all((p >= 0.5) != (scan.label == 1) for scan, p in found)
    every = worst_mistakes(run, 10_000)
    assert len(every) == round((1 - run.evaluation["metrics"]["accuracy"]["value"]) * len(run.scored()))
    assert found == every[:5]


def test_pictures_are_within_the_page(run: Run) -> None:
    scan, _ = worst_mistakes(run)[0]
    outline = Outline(report_html(run, Explained({scan.path: Picture(jpeg(10))}, None)))
    (image,) = outline.all("img")
    assert image["src"] is not None
    assert image["src"].startswith("data:image/jpeg;base64,")
    assert scan.path in str(image["alt"])


def test_what_cannot_be_said_is_said_to_be_so(run: Run) -> None:
    positives = [scan for scan in run.manifest if scan.split == "test" and scan.label == 1]
    evaluation = evaluate(positives, [0.9] * len(positives), fitted_on=[], split="published")
    outline = Outline(report_html(Run("one class", {}, positives, [], evaluation)))
    assert "No AUC can be given" in outline.text
    assert "n/a" in outline.text
    assert "nan" not in outline.text.lower().split()
    assert "None: every scored scan was called rightly." in outline.text


def test_a_run_is_read_from_its_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(run.config))
    (folder / "manifest.jsonl").write_bytes(to_lines(run.manifest))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in run.metrics))
    storage = LocalStorage(tmp_path)
    with pytest.raises(UserError, match=r"no evaluation\.json; a report needs a run that got as far"):
        load_run(storage, "mine")
    (folder / "evaluation.json").write_text(json.dumps(run.evaluation))
    read = load_run(storage, "mine")
    assert {**asdict(read), "name": 0, "summary": 0} == {**asdict(run), "name": 0, "summary": 0}
    (folder / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"mine/metrics\.jsonl: damaged"):
        load_run(storage, "mine")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.73), (1, 15), (0, 1500), (0, 3e-5), (2, 2), (0.4, 0.41)])
def test_axes_have_a_few_round_ticks_within_their_range(low: float, high: float) -> None:
    axis = Axis("x", low, high)
    assert 3 <= len(axis.ticks) <= 8
    assert axis.ticks[0] >= low - 1e-12
    assert axis.ticks[-1] <= axis.high * (1 + 1e-12)
    assert all(len(f"{tick:.6g}") <= 7 for tick in axis.ticks)


def test_axes_of_whole_things_have_whole_ticks() -> None:
    ticks: Any = Axis("Epoch", 1, 3, whole=True).ticks
    assert ticks == (1, 2, 3)


def test_a_table_too_wide_for_a_phone_names_each_cell_and_is_still_read_as_a_table() -> None:
    wide = Outline(table("Of it all", ["", "a", BARS, "b", 'c "d"'], [["row", "1", "bar", "2", ""]]))
    assert [cell.get("data-head") for cell in wide.all("td")] == ["a", BARS, "b", None]
    for tag, role in (("table", "table"), ("tr", "row"), ("td", "cell"), ("tbody", "rowgroup")):
        assert {element.get("role") for element in wide.all(tag)} == {role}
    assert [cell["role"] for cell in wide.all("th")] == ["columnheader"] * 5 + ["rowheader"]
    narrow = Outline(table("Of it all", ["", "a", "b"], [["row", "1", "2"]]))
    assert not any("data-head" in cell or "role" in cell for cell in narrow.all("td"))
