"""A run's folder: what is in it, and whether it is new, unfinished or finished."""

from __future__ import annotations

import json
import re
from typing import Any

from job import settings
from job.errors import UsageError
from job.scan import Scan, from_lines
from job.settings import Settings
from job.storage import Storage, open_storage

CONFIG = "config.yaml"
"""The resolved settings."""
MANIFEST = "manifest.jsonl"
"""One line per scan."""
NOTICES = "notices.json"
"""What was left out of the catalog, or is fewer than was asked for; a list of lines."""
METRICS = "metrics.jsonl"
"""One line per finished epoch."""
PROGRESS = "progress.json"
"""Where training stands within its epoch, for whoever watches."""
EVALUATION = "evaluation.json"
EXPORTED = "exported.json"
"""The version this run has become, so that a run that goes on does not export twice."""
REFUSED = "refused"
"""Holds the version that the quality gate kept from being published."""
REPORT = "report.html"
SUMMARY = "summary.json"
"""Written last: a run that has it is finished."""


def open_run(runs: str, name: str) -> Storage:
    """The folder of the run `name`. Raises `UsageError` for a name that cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(
            f"--run {name}: use letters, digits, '.', '_' and '-' (up to 100), for example --run baseline-1"
        )
    return open_storage(f"{runs.rstrip('/')}/{name}")


def summary(run: Storage) -> dict[str, Any] | None:
    """What a finished run says of itself, None while it is not finished."""
    found = _read(run, SUMMARY)
    return None if found is None else json.loads(found)


def manifest(run: Storage) -> list[Scan] | None:
    """The scans of a run, None before they were catalogued."""
    found = _read(run, MANIFEST)
    return None if found is None else list(from_lines(found))


def metrics(run: Storage) -> list[dict[str, float]]:
    """The lines of the epochs that are done."""
    return [json.loads(line) for line in (_read(run, METRICS) or b"").splitlines()]


def progress(run: Storage) -> dict[str, int] | None:
    """The epoch (from 1), the steps done in it and its number of steps, None before training has begun."""
    found = _read(run, PROGRESS)
    return None if found is None else dict(json.loads(found))


def claim(run: Storage, wanted: Settings) -> None:
    """Writes the settings of a new run, or makes sure that those of an unfinished one are still the same.

    Where and on how many workers it runs may change; what decides the result may not, once there is a manifest.

    Raises:
        UsageError: the run exists with other settings.
    """
    found = _read(run, CONFIG)
    if found is not None and _read(run, MANIFEST) is not None:
        before, now = settings.from_yaml(found, f"{run.url}/{CONFIG}").to_dict(), wanted.to_dict()
        for section in ("data", "model", "training"):
            for key, value in now[section].items():
                if before[section][key] != value:
                    raise UsageError(
                        f"{run.url}: this run has {section}.{key}={before[section][key]}, not {value}; "
                        "choose another --run NAME, or the settings it has"
                    )
    run.write(CONFIG, wanted.to_yaml().encode())


def _read(run: Storage, path: str) -> bytes | None:
    try:
        return run.read(path)
    except FileNotFoundError:
        return None
