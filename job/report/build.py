"""A finished run's report, with its network at hand: what needs TensorFlow, so that the pages do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from job import run as files
from job.audit.audit import audit
from job.audit.canonical import before_and_after
from job.cache import Cache
from job.gradcam import grad_cam, similarity
from job.model import Classifier
from job.report.audit import audit_section, offending
from job.report.contact import contact_section, contact_sheet
from job.report.page import Explained, Picture, report_html, worst_mistakes
from job.report.pictures import encode, overlay, thumbnail
from job.report.run import Run
from job.scan import Scan
from job.settings import Settings
from job.storage import Storage, open_storage

RANDOM_NETWORKS = 3
"""Networks with random weights that the maps are compared with."""

CANONICAL_UP_TO = 2_000
"""Canonical scans that a run looks at for what they still tell of their files."""

NEAR_DUPLICATES_UP_TO = 20_000
"""A run with more scans than this leaves near duplicates to `python -m job audit`, which may take its time."""


def build_report(
    settings: Settings,
    folder: Storage,
    name: str,
    model: Classifier,
    evaluation: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> str:
    """The HTML of a run whose folder has its manifest and metrics."""
    manifest = files.manifest(folder) or []
    run = Run(name, settings.to_dict(), manifest, files.metrics(folder), evaluation, summary)
    storage = open_storage(settings.data.root)
    cache = Cache(storage, canonical=settings.data.canonical)
    found = audit(
        manifest,
        storage.read,
        root=storage.url,
        split=settings.data.split,
        notices=summary.get("notices", ()),
        baseline=evaluation["shortcut"],
        canonical=_canonical(manifest, cache, settings) if settings.data.canonical else None,
        by_property=False,
        near=len(manifest) <= NEAR_DUPLICATES_UP_TO,
        seed=settings.training.seed,
    )
    pictures = {path: thumbnail(storage.read(path)) for path in offending(found)}
    sheet = contact_sheet(settings, manifest, cache)
    return report_html(
        run,
        explain(run, settings, model, cache),
        augmentation=contact_section(sheet, settings.data.augment or {}) if sheet else "",
        audit=audit_section(found, pictures),
    )


def _canonical(scans: Sequence[Scan], cache: Cache, settings: Settings) -> dict[str, Any]:
    """What the canonical scans still tell of their files; of many scans, a choice by their hashes will do."""
    some = sorted(scans, key=lambda scan: scan.sha256)[:CANONICAL_UP_TO]
    threads = settings.cluster.cpus_per_worker
    cache.fill(some, threads)
    return before_and_after(
        some, lambda scan: cache.read([scan])[0], None, threads=threads, seed=settings.training.seed
    )


def explain(run: Run, settings: Settings, model: Classifier, cache: Cache) -> Explained:
    """The worst mistakes as the network sees them, with Grad-CAM for the class that it called, and how much the maps
    are like those of the same network with random weights."""
    wrong = worst_mistakes(run)
    if not wrong:
        return Explained({}, None)
    scans = [scan for scan, _ in wrong]
    cache.fill(scans, settings.cluster.cpus_per_worker)
    pixels = cache.read(scans)
    images = pixels.astype(np.float32) / np.float32(255)
    called = np.array([probability >= run.evaluation["threshold"] for _, probability in wrong])
    maps = grad_cam(model, images, called)
    # Seeds that the run's own network does not start from.
    others = [
        grad_cam(Classifier(settings.model, precision=settings.training.precision, seed=seed), images, called)
        for seed in range(settings.training.seed + 1, settings.training.seed + 1 + RANDOM_NETWORKS)
    ]
    pictures = {
        scan.path: Picture(encode(seen), encode(overlay(seen, heat)))
        for scan, seen, heat in zip(scans, pixels, maps, strict=True)
    }
    return Explained(pictures, similarity(np.concatenate([maps] * RANDOM_NETWORKS), np.concatenate(others)))
