"""An `s3://bucket/prefix` as storage: the same contract as a folder, kept with a commit object that is written last.

A bundle `name` is the object `<name>/MANIFEST.json`; its files lie under `<name>/.blobs-<unique>/`, written before it.
Whoever reads starts at the manifest, so blobs without one do not exist for any reader. Blobs are checked by the sha256
in the manifest; any object by its length, by the checksum that the store keeps (boto3 does that), and by its ETag
where that is the MD5 of the content.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from job.errors import UserError
from job.files import (
    MANIFEST,
    Content,
    DamagedBundle,
    Entry,
    Manifest,
    ahead,
    bundle_files,
    pieces_of,
    safe_path,
)
from job.local import collect
from job.s3_client import Patience
from job.s3_commit import CLAIM, PROBE, keeps_first, put_once
from job.s3_objects import Objects

_BLOBS = ".blobs-"


class S3Storage:
    """A prefix of a bucket. See `job.storage.Storage` for what each method does.

    Nothing is sent before the first use; the first use finds out within 15 seconds whether the bucket can be reached.
    One client serves all threads. Pickling keeps the URL, not the client or any credentials.
    """

    threads = 32
    """Enough to hide a delay of 50 ms from a reader that needs 2 ms of CPU per object."""

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        bucket, prefix = parse(url)
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._patience = patience or Patience()
        self._objects = Objects(self.url, bucket, f"{prefix}/" if prefix else "", self._patience)
        self._conditional: bool | None = None

    def __reduce__(self) -> tuple[type[S3Storage], tuple[str, Patience]]:
        return S3Storage, (self.url, self._patience)

    def check(self) -> None:
        """See `Storage.check`. Missing bucket, wrong key, secret or region and an unreachable endpoint are told
        apart."""
        self._objects.client()

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Storage.entries`. The empty objects that stand for folders in some tools are passed over."""
        for each in self._objects.list(_folder(prefix)):
            if each.key.endswith("/") and not each.size:
                continue
            try:
                yield Entry(safe_path(each.key), each.size, each.etag)
            except UserError as error:
                raise UserError(f"{self.url}: {error}; rename or remove that object") from error

    def read(self, path: str, expected: Entry | None = None) -> bytes:
        """See `Storage.read`."""
        return self._objects.get(safe_path(path), expected)

    def write(self, path: str, data: bytes) -> None:
        """See `Storage.write`."""
        self._objects.put(safe_path(path), data)

    def delete(self, prefix: str) -> None:
        """See `Storage.delete`."""
        keys = [each.key for each in self._objects.list(_folder(prefix))]
        commits = [key for key in keys if key.rpartition("/")[2] == MANIFEST]
        self._objects.delete(commits)
        self._objects.delete([prefix, *(set(keys) - set(commits))] if prefix else set(keys) - set(commits))

    def bundles(self, prefix: str = "") -> list[str]:
        """See `Storage.bundles`."""
        top = _folder(prefix)
        parts = (each.key[len(top) :].split("/") for each in self._objects.list(top))
        return sorted(part[0] for part in parts if part[1:] == [MANIFEST] and not part[0].startswith("."))

    def manifest(self, name: str) -> Manifest:
        """See `Storage.manifest`."""
        return Manifest.from_json(self._objects.name(name), self.read(f"{name}/{MANIFEST}"))

    def write_bundle(self, name: str, files: Mapping[str, bytes | Path]) -> bool:
        """See `Storage.write_bundle`."""
        bundle_files(files)
        commit = f"{safe_path(name)}/{MANIFEST}"
        if self._is_committed(name):
            return False
        blobs = f"{_BLOBS}{uuid4().hex}"

        def send(path: str) -> Content:
            size, digest = 0, hashlib.sha256()
            for piece in pieces_of(files[path]):
                digest.update(piece)
                size += len(piece)
            self._objects.put(f"{name}/{blobs}/{path}", files[path])
            return Content(size, digest.hexdigest())

        try:
            described = dict(ahead(send, files, min(self.threads, 8)))
            if self._conditional is None:
                self._conditional = keeps_first(self._objects, name)
        except BaseException:
            with suppress(UserError):
                self.delete(f"{name}/{blobs}")
            raise
        # From here on an error leaves open whether the manifest is there: the blobs stay, `sweep` decides.
        manifest = Manifest(described, blobs)
        won = put_once(self._objects, commit, manifest.to_json(), conditional=self._conditional)
        if not won:
            self.delete(f"{name}/{blobs}")
        return won

    def read_bundle(self, name: str, into: Path | None = None) -> dict[str, bytes]:
        """See `Storage.read_bundle`."""
        manifest = self.manifest(name)

        def read(path: str) -> bytes:
            try:
                return self._objects.get("/".join(filter(None, (name, manifest.blobs, path))))
            except FileNotFoundError as error:
                raise DamagedBundle(f"{self._objects.name(name)}: damaged, {path} is missing") from error

        return collect(self._objects.name(name), manifest, read, min(self.threads, 8), into)

    def sweep(self, prefix: str = "", older_than: float = 0) -> None:
        """See `Storage.sweep`: blobs that no manifest names, claims and probes."""
        before = time.time() - older_than
        referenced: dict[str, str] = {}
        doomed = []
        for each in self._objects.list(_folder(prefix)):
            parts = each.key.split("/")
            at = next((i for i, part in enumerate(parts) if part.startswith((_BLOBS, PROBE, CLAIM))), None)
            if at is None or each.modified > before:
                continue
            bundle = "/".join(parts[:at])
            if bundle not in referenced:
                referenced[bundle] = self._blobs_of(bundle)
            if parts[at] != referenced[bundle]:
                doomed.append(each.key)
        self._objects.delete(doomed)

    def _is_committed(self, name: str) -> bool:
        return any(each.key == f"{name}/{MANIFEST}" for each in self._objects.list(f"{name}/{MANIFEST}"))

    def _blobs_of(self, name: str) -> str:
        try:
            return self.manifest(name).blobs
        except FileNotFoundError:
            return ""


def parse(url: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`, the prefix without slashes around it. Raises `UserError`."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if not url.startswith("s3://") or not bucket or "@" in bucket or ":" in bucket:
        raise UserError("an S3 address has the form s3://bucket/prefix, with nothing before the bucket")
    if prefix:
        safe_path(prefix)
    return bucket, prefix


def _folder(prefix: str) -> str:
    return f"{safe_path(prefix)}/" if prefix else ""
