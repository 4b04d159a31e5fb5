"""The versions of a model in a storage, and the labels that name some of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from job.errors import UserError
from job.storage import Storage, open_storage
from serving.version import version_number

LABELS_FILE = "labels.json"
"""Beside the versions: which version each label names, `{"stable": 3, "canary": 4}`."""

_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_A_DAY = 86_400.0


def versions(storage: Storage) -> list[int]:
    """The numbers of the complete versions, the oldest first."""
    return sorted(filter(None, map(version_number, storage.bundles())))


def read_labels(storage: Storage) -> dict[str, int]:
    """The labels; none if nobody has set any. Raises `UserError` if the file is broken."""
    try:
        content = json.loads(storage.read(LABELS_FILE))
        if not all(type(number) is int and number > 0 and _LABEL.fullmatch(label) for label, number in content.items()):
            raise ValueError
        return dict(content)
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f'{storage.url}/{LABELS_FILE}: not an object of version numbers by label, such as {{"stable": 3}}'
        ) from error


def write_labels(storage: Storage, labels: Mapping[str, int]) -> None:
    """Replaces the labels."""
    storage.write(LABELS_FILE, json.dumps(dict(sorted(labels.items()))).encode() + b"\n")


def publish(source: str, target: str) -> tuple[int, bool]:
    """Copies the version at `source` below `target`; its number there, and whether it had not been there before.

    It keeps its number if that is above all that are there, else it gets the next one. Both are folders or s3://
    addresses. Raises `UserError` if `source` is no complete version or `target` cannot be written.
    """
    parent, _, name = source.rstrip("/").rpartition("/")
    origin, registry = open_storage(parent or ("/" if source.startswith("/") else ".")), open_storage(target)
    try:
        files, digest = origin.read_bundle(name), origin.manifest(name).digest()
    except FileNotFoundError as error:
        raise UserError(
            f"{source}: no complete version is there; publish a folder that an export has written"
        ) from error
    if "saved_model.pb" not in files:
        raise UserError(f"{source}: holds no saved_model.pb; publish what an export has written")
    registry.sweep(older_than=_A_DAY)
    there = versions(registry)
    for number in reversed(there):
        if registry.manifest(str(number)).digest() == digest:
            return number, False
    number = max(max(there, default=0) + 1, version_number(name) or 1)
    while not registry.write_bundle(str(number), files):
        if registry.manifest(str(number)).digest() == digest:
            return number, False  # somebody else has published the same at the same moment
        number += 1
    return number, True


def move_label(storage: Storage, label: str, version: int) -> int | None:
    """Lets a label name a version that is there; the one it named before. Raises `UserError`."""
    if not _LABEL.fullmatch(label):
        raise UserError(f"{label!r}: no label; use letters, digits, and _ . - after the first one")
    there = versions(storage)
    if version not in there:
        listed = ", ".join(map(str, there)) or "none"
        raise UserError(f"{storage.url}: there is no complete version {version}; there are: {listed}")
    labels = read_labels(storage)
    before = labels.get(label)
    write_labels(storage, {**labels, label: version})
    return before


def version_before(storage: Storage, label: str) -> int:
    """The version that `label` goes back to: the newest one older than what it names. Raises `UserError`."""
    labels = read_labels(storage)
    if label not in labels:
        raise UserError(f"{storage.url}: no version is labelled {label}; promote one first")
    older = [number for number in versions(storage) if number < labels[label]]
    if not older:
        raise UserError(f"{storage.url}: {label} is version {labels[label]}, and there is none before it")
    return older[-1]
