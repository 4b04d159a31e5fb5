"""Scores of an exported version: its own `predict_bytes`, on files as a client would send them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from job import catalog, settings
from job.console import say
from job.errors import UserError
from job.evaluation import evaluate
from job.scan import Scan, to_lines
from job.storage import open_storage, read_many

_BATCH = 32


def score_version(version: Path, root: str, part: str) -> dict[str, Any]:
    """The content of `evaluation.json` for a part (or "all") of the data set at `root`.

    Raises:
        UserError: the version or the data set cannot be used, or the part has no scans.
    """
    from serving.model import load_version, start_quietly

    start_quietly()

    model, info = load_version(version)
    try:
        own = settings.from_yaml(info.run["settings"].encode(), f"{version}: the settings of its run")
    except KeyError as error:
        raise UserError(
            f"{version}: does not say how its run split the data; export it again with this version"
        ) from error
    scans = catalog.build(replace(own.data, root=root), own.training.seed).scans
    if hashlib.sha256(to_lines(scans)).hexdigest() != info.run.get("manifest_sha256"):
        say("these are not exactly the scans of the version's run; a scan that is in both may have been trained on")
    scored = [scan for scan in scans if part in (scan.split, "all")]
    probabilities: list[float] = []
    try:
        for batch in (scored[start : start + _BATCH] for start in range(0, len(scored), _BATCH)):
            probabilities += _probabilities(model, root, batch)
    finally:
        model.close()
    return evaluate(
        scored,
        probabilities,
        fitted_on=[scan for scan in scans if scan.split in ("train", "val")],
        split=own.data.split,
        part=part,
        threshold=info.threshold,
    )


def _probabilities(model: Any, root: str, scans: list[Scan]) -> list[float]:
    contents = [content for _, content in read_many(open_storage(root), [scan.path for scan in scans])]
    answer = model.predict("predict_bytes", {"image_bytes": np.array(contents, object)})
    return [float(probability) for probability in answer["probability"]]
