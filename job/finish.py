"""After training: evaluation and export of a run. The part of the driver that needs TensorFlow."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from job import checkpoint, run
from job.cache import Cache
from job.console import say
from job.errors import UserError
from job.evaluation import Validation, evaluate
from job.model import Classifier
from job.model_card import model_card
from job.predict import probabilities, trained
from job.quality_gate import check_gate
from job.settings import Settings
from job.storage import Storage, open_storage


def evaluate_run(settings: Settings, folder: Storage) -> tuple[dict[str, Any], Classifier]:
    """Scores the test part with the last checkpoint's weights: the content of `evaluation.json`, and the network."""
    found = checkpoint.load_newest(folder, say)
    if found is None:
        raise UserError(f"{folder.url}: no checkpoint to evaluate; remove the run and train again")
    model = trained(settings, found[1])
    scans = run.manifest(folder) or []
    cache = Cache(open_storage(settings.data.root), canonical=settings.data.canonical)
    batch, threads = settings.training.batch_size, settings.cluster.cpus_per_worker
    parts = {part: [scan for scan in scans if scan.split == part] for part in ("train", "val", "test")}
    scored = {part: probabilities(model, parts[part], cache, batch, threads).tolist() for part in ("val", "test")}
    evaluation = evaluate(
        parts["test"],
        scored["test"],
        fitted_on=parts["train"] + parts["val"],
        split=settings.data.split,
        validation=Validation(parts["val"], scored["val"]),
        seed=settings.training.seed,
    )
    folder.write(run.EVALUATION, json.dumps(evaluation, indent=1, ensure_ascii=False, allow_nan=False).encode())
    return evaluation, model


def export_run(
    settings: Settings, folder: Storage, name: str, model: Classifier, evaluation: dict[str, Any]
) -> dict[str, Any]:
    """Exports the network, once per run: {"version": N, "url": where it is, "refused": reasons of the quality gate}.

    A version that the gate refuses is kept in the run's folder and not published.
    """
    from serving.export import export_version

    try:
        return dict(json.loads(folder.read(run.EXPORTED)))
    except FileNotFoundError:
        pass
    export = settings.export
    refused = check_gate(export.quality_gate or {}, evaluation)
    for reason in refused:
        say(f"not published: {reason}")
    root, model_name = (folder.url, run.REFUSED) if refused else (export.root.rstrip("/"), export.name)
    number = export_version(
        model,
        root=root,
        name=model_name,
        labels=(settings.data.negative, settings.data.positive),
        threshold=evaluation["threshold"],
        canonical=settings.data.canonical,
        evaluation=evaluation,
        model_card=model_card(settings.to_dict(), evaluation, run.manifest(folder) or [], run=name),
        run={
            "name": name,
            "manifest_sha256": hashlib.sha256(folder.read(run.MANIFEST)).hexdigest(),
            # With it `job evaluate` can tell again which scans were trained on.
            "settings": settings.to_yaml(),
        },
    )
    exported = {"version": number, "url": f"{root}/{model_name}/{number}", "refused": refused}
    folder.write(run.EXPORTED, json.dumps(exported).encode())
    return exported
