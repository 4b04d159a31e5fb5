"""Several seeds in one command, for real: two runs, two local Rays in turn, one comparison, and the quality gate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from job import sample
from job.storage import LocalStorage


@pytest.mark.timeout(600)
def test_each_seed_is_a_run_and_all_are_compared(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "scans")
    for drawing in sample.draw(24, seed=0):
        storage.write(drawing.path, drawing.data)
    settings = {
        "data.root": tmp_path / "scans",
        "data.per_class": "null",
        "data.canonical": "true",
        "model.filters": "[4, 8]",
        "model.pool_size": 5,
        "training.epochs": 1,
        "runs": tmp_path / "runs",
        "export.root": tmp_path / "models",
        "export.quality_gate": "{auc_lower_bound: 0.9999}",
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "job", "train", "--run", "two", "--seeds", "3,4"),
            *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
        ],
        env={**os.environ, "COVID_CT_CACHE": str(tmp_path / "cache"), "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr  # refused by the gate: one epoch on 36 drawings reaches no such bound
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout)
    assert list(result["runs"]) == ["two-seed3", "two-seed4"]
    values = [result["runs"][name]["figures"]["auc"]["value"] for name in result["runs"]]
    assert result["figures"]["auc"]["values"] == values
    for name, seed in (("two-seed3", 3), ("two-seed4", 4)):
        assert f"seed: {seed}" in (tmp_path / "runs" / name / "config.yaml").read_text()
        assert "auc_lower_bound" in result["runs"][name]["exported"]["refused"][0]
        assert (tmp_path / "runs" / name / "report.html").exists()
    page = (tmp_path / "runs" / "two-seeds.html").read_text()
    assert "two-seed3" in page
    assert "training.seed" in page
    assert not (tmp_path / "models").exists()
