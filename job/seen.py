"""What an earlier catalog saw of files that have not changed since, so that the next one reads only the listing."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from job.cache import default_folder
from job.errors import UserError
from job.files import Entry
from job.images import Header
from job.storage import LocalStorage


@dataclass(frozen=True, slots=True)
class Seen:
    """A scan's content, by its hash, and its header."""

    sha256: str
    width: int
    height: int
    mode: str
    format: str

    @classmethod
    def of(cls, data: bytes, header: Header) -> Seen:
        """What there is to remember of an encoded image that was found good."""
        return cls(hashlib.sha256(data).hexdigest(), *header)


def recall(url: str, folder: Path | None = None) -> dict[Entry, Seen]:
    """What is remembered of the data root `url` on this machine; nothing where that cannot be read."""
    try:
        lines = _storage(folder).read(_name(url)).splitlines()
        known = (json.loads(line) for line in lines)
        return {Entry(*line.pop("entry")): Seen(**line) for line in known}
    except (UserError, OSError, ValueError, TypeError, KeyError):
        return {}


def remember(url: str, seen: Mapping[Entry, Seen], folder: Path | None = None) -> None:
    """Keeps it for the next time, if it can be kept."""
    lines = [json.dumps({"entry": entry, **asdict(found)}) for entry, found in sorted(seen.items())]
    # A cache that is full or read-only costs the next run time, and this one nothing.
    with contextlib.suppress(UserError):
        _storage(folder).write(_name(url), "\n".join(lines).encode())


def _storage(folder: Path | None) -> LocalStorage:
    return LocalStorage(folder or default_folder())


def _name(url: str) -> str:
    return f"catalog/{hashlib.sha256(url.encode()).hexdigest()[:16]}.jsonl"
