"""What every storage shares: entries of a listing, paths that stay below their root, manifests of bundles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from job.errors import UserError

MANIFEST = "MANIFEST.json"
"""The file of a bundle that names all others; written last."""

TEMPORARY = ".incomplete-"
"""Begins the names, in a folder, of what is not there yet: no reader looks at it, and `sweep` removes it."""

T = TypeVar("T")
R = TypeVar("R")


class Entry(NamedTuple):
    """One file of a listing: its path below the root ("/" between parts), size in bytes, and a tag that changes
    when its content does (modification time in nanoseconds, or the ETag)."""

    path: str
    size: int
    tag: str


class ChangedFile(UserError):
    """A file that is no longer the one that was listed."""


class DamagedBundle(UserError):
    """A bundle whose files are not those its manifest names."""


def safe_path(path: str) -> str:
    """The same path, if it is relative, stays below its root, and names one file there in one way only.

    Raises:
        UserError: otherwise; `a/../b`, `/a`, `a//b`, `a\\b` and the like are refused.
    """
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or "\0" in path:
        raise UserError(f"{path!r}: refused, such a path could leave its folder")
    return path


class Content(NamedTuple):
    """What a file of a bundle must hold."""

    size: int
    """In bytes."""
    sha256: str
    """In hexadecimal."""


def content_of(data: bytes) -> Content:
    """Size and hash of a file's content."""
    return Content(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """The files of a bundle."""

    files: dict[str, Content]
    """By path within the bundle."""
    blobs: str = ""
    """The folder within the bundle that holds the files; "" where they lie in the bundle itself."""

    def to_json(self) -> bytes:
        """`{"files": {path: {"size": bytes, "sha256": hex}}}`, and "blobs" where that is not ""."""
        described = {path: content._asdict() for path, content in sorted(self.files.items())}
        return json.dumps({"files": described, **({"blobs": self.blobs} if self.blobs else {})}, indent=1).encode()

    @classmethod
    def from_json(cls, bundle: str, data: bytes) -> Manifest:
        """The manifest of the bundle that messages call `bundle`. Raises `DamagedBundle` if it is none."""
        try:
            held = json.loads(data)
            blobs = held.get("blobs", "")
            files = {
                safe_path(path): Content(int(said["size"]), str(said["sha256"])) for path, said in held["files"].items()
            }
            return cls(files, safe_path(blobs) if blobs else "")
        except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedBundle(f"{bundle}: damaged, its {MANIFEST} is no manifest") from error

    def digest(self) -> str:
        """Names what the bundle holds, wherever it is stored: equal for copies of a bundle."""
        return hashlib.sha256(Manifest(self.files).to_json()).hexdigest()

    def check(self, bundle: str, path: str, data: bytes) -> bytes:
        """The same data. Raises `DamagedBundle` unless it is what the file at `path` must hold."""
        said = self.files[path]
        if len(data) != said.size:
            raise DamagedBundle(f"{bundle}: damaged, {path} has {len(data)} bytes instead of {said.size}")
        if content_of(data) != said:
            raise DamagedBundle(f"{bundle}: damaged, the content of {path} is not what was written")
        return data


def bundle_files(files: Iterable[str]) -> None:
    """Raises `ValueError` for a name that a bundle cannot give to one of its files, and `UserError` as `safe_path`."""
    for path in files:
        if safe_path(path) == MANIFEST:
            raise ValueError(f"{MANIFEST} is written by the storage")


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[tuple[T, R]]:
    """Each item with `function` of it, in order, worked out by threads a little ahead of the reader.

    At most `2 * threads` results wait in memory. Leaving early, or an error in `function`, stops what has not begun.
    """
    upcoming = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        pending = [(item, pool.submit(function, item)) for item in islice(upcoming, 2 * threads)]
        try:
            while pending:
                item, future = pending.pop(0)
                result = future.result()
                pending.extend((later, pool.submit(function, later)) for later in islice(upcoming, 1))
                yield item, result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def pieces_of(content: bytes | Path, chunk: int = 1 << 20) -> Iterator[bytes]:
    """The content of a file to be, in pieces; a `Path` is read from there."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(chunk):
            yield piece
