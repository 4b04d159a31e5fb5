"""Our own runs, for the comparison: the command, and what its run folder says in the words of the peers' protocol."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Outcome
from job import run


@dataclass(frozen=True)
class Shape:
    """How the job runs."""

    workers: int
    threads: int
    ray: bool = True


def command(shape: Shape, folder: Path, precision: str, epochs: int, overrides: list[str], seed: int = 0) -> list[str]:
    """The whole job, its run in `folder/run` and its version in `folder/models`."""
    settings = [
        *overrides,
        f"runs={folder}",
        f"export.root={folder}/models",
        f"training.precision={precision}",
        f"training.epochs={epochs}",
        f"training.seed={seed}",
        f"cluster.workers={shape.workers}",
        f"cluster.cpus_per_worker={shape.threads}",
    ]
    program = ["-m", "job", "train"] if shape.ray else ["-m", "benchmarks.peers.solo"]
    return [sys.executable, *program, "--run", "run", *(word for each in settings for word in ("--set", each))]


def first_sign(folder: Path) -> Path:
    """The file that the job writes when its first step is done."""
    return folder / "run" / run.PROGRESS


def outcome(folder: Path, first_step: float | None) -> Outcome:
    """What a finished run says, as the peers would."""
    own = folder / "run"
    lines = [json.loads(line) for line in (own / run.METRICS).read_text().splitlines()]
    scans = [json.loads(line)["split"] for line in (own / run.MANIFEST).read_text().splitlines()]
    images = scans.count("train")
    train_seconds = [images / line["images_per_second"] for line in lines]
    evaluation = json.loads((own / run.EVALUATION).read_text())
    chosen = evaluation["chosen_threshold"]
    later = slice(1 if len(lines) > 1 else 0, None)
    waited = sum(
        line["data_wait_share"] * spent for line, spent in zip(lines[later], train_seconds[later], strict=True)
    )
    return Outcome(
        first_step=first_step,
        # A version appears by rename, which is the last change of its folder.
        exported=next((folder / "models" / "covid_ct").glob("[0-9]*")).stat().st_ctime,
        train_seconds=train_seconds,
        epoch_seconds=[line["seconds"] for line in lines],
        images=images,
        loss=[line["loss"] for line in lines],
        val_loss=[line["val_loss"] for line in lines],
        val_auc=chosen and chosen["validation"]["auc"]["value"],
        test_auc=evaluation["metrics"]["auc"]["value"],
        data_wait_share=waited / sum(train_seconds[later]),
    )


def quality(folder: Path) -> dict[str, Any]:
    """Of a finished run: loss per epoch, and the test AUC with its 95% interval."""
    lines = (folder / "run" / run.METRICS).read_text().splitlines()
    auc = json.loads((folder / "run" / run.EVALUATION).read_text())["metrics"]["auc"]
    return {"loss": [json.loads(line)["loss"] for line in lines], "auc": auc}
