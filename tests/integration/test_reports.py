"""Reports of real runs' files: made by the commands, looked at in a browser, and true to an exported version."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from job import catalog, checkpoint, settings
from job.cli import main
from job.finish import evaluate_run, export_run
from job.model import Classifier
from job.preprocess import preprocess
from job.scan import to_lines
from job.storage import LocalStorage
from job.trainer import make_optimizer
from tests.browser import browse, find_chromium
from tests.pictures import drawn_scans

SMALL = ["model.filters=[4, 8]", "model.pool_size=5", "model.dense=16", "data.per_class=null"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_scans(tmp_path_factory.mktemp("scans"), 24, 0)


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs as training leaves them, with random weights (training has tests of its own); one is canonical."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVID_CT_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name, seed, canonical in (("one", 0, "false"), ("two", 1, "true")):
            own = [f"data.root={root}", f"training.seed={seed}", f"data.canonical={canonical}"]
            own += ["data.augment={rotation_range: 10, horizontal_flip: true}"] if name == "two" else []
            config = settings.load(None, [*SMALL, *own, f"export.root={folder}/models"])
            run = LocalStorage(folder / name)
            run.write("config.yaml", config.to_yaml().encode())
            # One split for both, so that they can be compared.
            run.write("manifest.jsonl", to_lines(catalog.build(config.data, 0).scans))
            line = {"epoch": 1, "loss": 0.7, "accuracy": 0.5, "val_loss": 0.7, "val_accuracy": 0.5}
            run.write("metrics.jsonl", json.dumps(line).encode())
            model = Classifier(config.model, seed=seed)
            variables = model.trainable_variables, make_optimizer(config.training, model).variables
            arrays = [[variable.numpy() for variable in each] for each in variables]
            checkpoint.save(run, checkpoint.State(1, 0, 1, *arrays, [0.0] * 3))
            evaluation, model = evaluate_run(config, run)
            export_run(config, run, name, model, evaluation)
        yield folder


def test_one_run_s_report_is_made_anew(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "one", "--runs", str(runs)]) == 0
    assert capsys.readouterr().out.strip() == f"{runs}/one/report.html"
    page = (runs / "one" / "report.html").read_text()
    assert "Run one" in page
    assert page.count("data:image/jpeg;base64,") >= 2
    assert "Grad-CAM over the scan" in page
    assert "Audit of the data set" in page


def test_a_report_shows_augmentation_and_canonical_scans_where_a_run_has_them(runs: Path) -> None:
    pages = {}
    for name in ("one", "two"):
        assert main(["report", name, "--runs", str(runs)]) == 0
        pages[name] = (runs / name / "report.html").read_text()
    for told in ('id="augmentation"', "as epoch 15 showed it", "The same forest on canonical scans"):
        assert told in pages["two"]
        assert told not in pages["one"]
    assert "before augmentation" not in pages["one"]


def test_several_runs_are_compared_on_one_page(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "both.html"
    assert main(["report", str(runs / "one"), str(runs / "two"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = out.read_text()
    assert "Differences from one" in page
    assert "data.canonical" in page


def test_a_run_that_is_not_there_is_said_in_one_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "three", "--runs", str(runs)]) == 1
    said = capsys.readouterr().err
    assert "three: no config.yaml; a report needs a run that got as far as its evaluation" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("name", "canonical"), [("one", False), ("two", True)])
def test_an_exported_version_preprocesses_as_its_run_did(runs: Path, root: Path, name: str, canonical: bool) -> None:
    exported = json.loads((runs / name / "exported.json").read_text())
    evaluation = json.loads((runs / name / "evaluation.json").read_text())
    loaded = tf.saved_model.load(exported["url"])
    paths = list(evaluation["probabilities"])[:8]
    data = tf.constant([(root / path).read_bytes() for path in paths])
    given = loaded.signatures["predict_bytes"](image_bytes=data)["probability"].numpy()
    np.testing.assert_allclose(given, [evaluation["probabilities"][path] for path in paths], rtol=0, atol=1e-6)
    pixels = preprocess(data, canonical=canonical)
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](images=pixels)["probability"].numpy(), given, rtol=0, atol=1e-6
    )


@pytest.fixture(scope="module")
def pages(runs: Path) -> list[Path]:
    made = [runs / "one.html", runs / "two.html", runs / "both.html"]
    assert main(["report", "one", "--runs", str(runs), "--out", str(made[0])]) == 0
    assert main(["report", "two", "--runs", str(runs), "--out", str(made[1])]) == 0
    assert main(["report", "one", "two", "--runs", str(runs), "--out", str(made[2])]) == 0
    return made


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_their_window_and_can_be_read(pages: list[Path], width: int, dark: bool) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")

    async def visit() -> None:
        async with browse(program) as page:
            await page.look(dark, width, 900)
            for file in pages:
                await page.open(file.as_uri())
                assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), file.name
                assert await page.evaluate(_CUT_OFF) == [], file.name
                assert await page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
                assert await page.evaluate(_LEAST_CONTRAST) >= 4.5, file.name
            assert page.problems == []

    asyncio.run(visit())


_CUT_OFF = """[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1)
  .map(box => box.getAttribute('aria-label'))"""
"""The tables of which a part can only be seen by scrolling."""

_LEAST_CONTRAST = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = numbers(colour).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const parts = numbers(getComputedStyle(element).backgroundColor);
      if (parts.length < 4 || parts[3] > 0) return getComputedStyle(element).backgroundColor;
    }
    return 'rgb(255, 255, 255)';
  };
  let least = 21;
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(element.closest('svg') ? style.fill : style.color), light(behind(element))];
    least = Math.min(least, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05));
  }
  return least;
})()"""
"""The least contrast (WCAG 2) between a text and what is behind it."""


def test_the_audit_is_a_page_of_its_own_too(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = LocalStorage(tmp_path / "scans")
    for entry in LocalStorage(root).entries():
        storage.write(entry.path, (root / entry.path).read_bytes())
    first = next(entry.path for entry in storage.entries("CT_COVID"))
    storage.write("CT_NonCOVID/copy%0.png", storage.read(first))
    out = tmp_path / "audit.html"
    assert main(["audit", storage.url, "--html", str(out)]) == 0
    assert "1 exact duplicate in both classes" in capsys.readouterr().out
    page = out.read_text()
    assert "1 exact duplicate in both classes" in page
    assert f'alt="The scan {first}"' in page
    assert 'alt="The scan CT_NonCOVID/copy%0.png"' in page
    assert main(["audit", storage.url, "--html", str(tmp_path / "no" / "such.html")]) == 1
    assert "cannot be written" in capsys.readouterr().err
