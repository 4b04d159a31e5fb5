"""Where bytes live: a folder, or an `s3://` prefix. Whatever reads or writes files of a run goes through here.

Two things are stored. Single files are written whole or not at all. A *bundle* is a folder of files that appears whole
or not at all and never changes afterwards: checkpoints and exported versions are bundles. A bundle's `MANIFEST.json`
names the size and sha256 of each of its files; a reader checks them before it uses anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from job.errors import UserError
from job.files import MANIFEST, ChangedFile, DamagedBundle, Entry, Manifest, ahead, safe_path
from job.local import LocalStorage

__all__ = [
    "MANIFEST",
    "ChangedFile",
    "DamagedBundle",
    "Entry",
    "LocalStorage",
    "Manifest",
    "Storage",
    "open_file",
    "open_storage",
    "read_many",
    "safe_path",
]


class Storage(Protocol):
    """A root with files and bundles below it; every path is relative to the root, with "/" between its parts.

    Every method raises `UserError` in one line for what a user can mend: no such folder or bucket, no permission,
    no space left. A path that would leave the root is refused.
    """

    @property
    def url(self) -> str:
        """The root: a folder or `s3://bucket/prefix`."""

    @property
    def threads(self) -> int:
        """How many reads at once make sense here."""

    def check(self) -> None:
        """Raises `UserError` within 15 seconds unless the root can be reached."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """All files below the folder `prefix`, with memory for one page of the listing; none if there is no such
        folder. The order is the storage's own (a folder and Amazon S3 sort by path); a bundle's files appear as they
        are stored."""

    def read(self, path: str, expected: Entry | None = None) -> bytes:
        """The content of a file. Raises `FileNotFoundError` if there is none; with `expected`, `ChangedFile` if it
        is not the file of that listing any more."""

    def write(self, path: str, data: bytes) -> None:
        """Makes or replaces a file; a reader sees the old content or the new, never a part."""

    def delete(self, prefix: str) -> None:
        """Removes a file or a folder with all below it, if it is there; a bundle stops being one first."""

    def bundles(self, prefix: str = "") -> list[str]:
        """The names of the complete bundles directly below the folder `prefix`, sorted."""

    def manifest(self, name: str) -> Manifest:
        """What a bundle holds, without reading it. Raises as `read_bundle` does."""

    def write_bundle(self, name: str, files: Mapping[str, bytes | Path]) -> bool:
        """Stores files (by their path within the bundle) as a bundle; False, and nothing stored, if one of that
        name is there already, however close the race."""

    def read_bundle(self, name: str, into: Path | None = None) -> dict[str, bytes]:
        """A bundle's files, checked against its manifest. With `into`, they are written to that new folder, whole
        or not at all, and the answer is empty; a call after one that was killed goes on where that was. Raises
        `DamagedBundle`, or `FileNotFoundError` if there is none."""

    def sweep(self, prefix: str = "", older_than: float = 0) -> None:
        """Removes what writers that were interrupted left below the folder `prefix`, if it is `older_than` seconds
        old. Call it where no other writer is at work, or with an age that none of them reaches."""


def open_storage(url: str) -> Storage:
    """The storage behind a folder or an `s3://bucket/prefix`."""
    if url.startswith("s3://"):
        from job.s3 import S3Storage

        return S3Storage(url)
    if "://" in url:
        raise UserError(f"{url}: only a folder or s3://bucket/prefix can be used here")
    return LocalStorage(url)


def absolute(url: str) -> str:
    """The same place for a process that works in another folder."""
    return url if "://" in url else str(Path(url).expanduser().absolute())


def open_file(url: str) -> bytes:
    """The content of one file, local or s3://. Raises `UserError` if there is none."""
    folder, _, name = url.rpartition("/")
    try:
        return open_storage(folder or ("/" if url.startswith("/") else ".")).read(name)
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file") from error


def read_many(
    storage: Storage, files: Iterable[Entry | str], threads: int | None = None
) -> Iterator[tuple[Entry | str, bytes]]:
    """Each file with its content, in the order given, read in parallel with at most `2 * threads` contents in memory.

    Files given as entries are checked against them. Raises as `Storage.read` does, at the file concerned.
    """

    def read(file: Entry | str) -> bytes:
        return storage.read(file.path, file) if isinstance(file, Entry) else storage.read(file)

    yield from ahead(read, files, threads or storage.threads)
