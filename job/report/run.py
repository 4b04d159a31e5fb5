"""The files of a run, as its report needs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from job import scan as scans
from job.errors import UserError
from job.scan import Scan
from job.storage import Storage


@dataclass(frozen=True)
class Run:
    """What a run leaves, read; see the design of `<runs>/<NAME>/`."""

    name: str
    config: Mapping[str, Any]
    """The resolved settings."""
    manifest: Sequence[Scan]
    metrics: Sequence[Mapping[str, Any]]
    """One mapping per epoch: epoch, loss, accuracy, val_loss, val_accuracy, images_per_second, ..."""
    evaluation: Mapping[str, Any]
    summary: Mapping[str, Any] = field(default_factory=dict)

    def scored(self) -> list[tuple[Scan, float]]:
        """The scans that were scored, each with its probability of the positive class, sorted by path.

        Raises:
            UserError: the evaluation names a scan that the manifest does not have.
        """
        by_path = {scan.path: scan for scan in self.manifest}
        pairs = sorted(self.evaluation["probabilities"].items())
        missing = [path for path, _ in pairs if path not in by_path]
        if missing:
            raise UserError(f"run {self.name}: evaluation.json names {missing[0]}, which manifest.jsonl does not have")
        return [(by_path[path], probability) for path, probability in pairs]

    def class_names(self) -> tuple[str, str]:
        """The names of the negative and the positive class."""
        data = self.config.get("data", {})
        return str(data.get("negative", "negative")), str(data.get("positive", "positive"))


def load_run(storage: Storage, name: str) -> Run:
    """Reads a run below `runs`. Without a `summary.json` (a run that ended after its evaluation) that part is empty.

    Raises:
        UserError: there is no such run, it has no evaluation yet, or a file is not what it should be.
    """

    readers: dict[str, Callable[[bytes], Any]] = {
        "config.yaml": yaml.safe_load,
        "manifest.jsonl": lambda data: list(scans.from_lines(data)),
        "metrics.jsonl": lambda data: [json.loads(line) for line in data.splitlines()],
        "evaluation.json": json.loads,
        "summary.json": json.loads,
    }
    found: list[Any] = []
    for file, parse in readers.items():
        try:
            found.append(parse(storage.read(f"{name}/{file}")))
        except FileNotFoundError as error:
            if file != "summary.json":
                raise UserError(
                    f"{storage.url}/{name}: no {file}; a report needs a run that got as far as its evaluation"
                ) from error
            found.append({})
        except (ValueError, TypeError, yaml.YAMLError) as error:
            raise UserError(f"{storage.url}/{name}/{file}: damaged ({' '.join(str(error).split())})") from error
    return Run(name, *found)
