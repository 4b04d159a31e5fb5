"""Where bytes live: a folder, or an `s3://` prefix. Whatever reads or writes files of a run goes through here.

Two things are stored. Single files are written whole or not at all. A *bundle* is a folder of files that appears whole
or not at all and never changes afterwards: checkpoints and exported versions are bundles. A bundle's `MANIFEST.json`
names the size and sha256 of each of its files; a reader checks them before it uses anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from job.errors import UserError

MANIFEST = "MANIFEST.json"
_TEMPORARY = ".incomplete-"


class Entry(NamedTuple):
    """One file of a listing: its path below the root ("/" between parts), size in bytes, and a tag that changes
    when its content does (modification time in nanoseconds, or the ETag)."""

    path: str
    size: int
    tag: str


class DamagedBundle(UserError):
    """A bundle whose files are not those its manifest names."""


class Storage(Protocol):
    """A root with files and bundles below it; every path is relative to the root, with "/" between its parts.

    Every method raises `UserError` in one line for what a user can mend: no such folder or bucket, no permission,
    no space left. A path that would leave the root is refused.
    """

    @property
    def url(self) -> str:
        """The root as a user wrote it: a folder or `s3://bucket/prefix`."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """All files below the folder `prefix`, sorted by path; none if there is no such folder."""

    def read(self, path: str) -> bytes:
        """The content of a file. Raises `FileNotFoundError` if there is none."""

    def write(self, path: str, data: bytes) -> None:
        """Makes or replaces a file; a reader sees the old content or the new, never a part."""

    def delete(self, prefix: str) -> None:
        """Removes a file or a folder with all below it, if it is there."""

    def bundles(self, prefix: str = "") -> list[str]:
        """The names of the complete bundles directly below the folder `prefix`, sorted."""

    def write_bundle(self, name: str, files: Mapping[str, bytes | Path]) -> bool:
        """Stores files (by their path within the bundle) as a bundle; False, and nothing stored, if one of that
        name is there already, however close the race."""

    def read_bundle(self, name: str, into: Path | None = None) -> dict[str, bytes]:
        """A bundle's files, checked against its manifest. With `into`, they are written to that new folder, whole
        or not at all, and the answer is empty. Raises `DamagedBundle`, or `FileNotFoundError` if there is none."""

    def sweep(self, prefix: str = "") -> None:
        """Removes what interrupted writers left below the folder `prefix`. Call it where no other writer is at work."""


def open_storage(url: str) -> Storage:
    """The storage behind a folder or an `s3://bucket/prefix`."""
    if url.startswith("s3://"):
        from job.s3 import S3Storage

        return S3Storage(url)  # type: ignore[return-value]
    if "://" in url:
        raise UserError(f"{url}: only a folder or s3://bucket/prefix can be used here")
    return LocalStorage(url)


def open_file(url: str) -> bytes:
    """The content of one file, local or s3://. Raises `UserError` if there is none."""
    folder, _, name = url.rpartition("/")
    try:
        return open_storage(folder or ("/" if url.startswith("/") else ".")).read(name)
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such file") from error


def safe_path(path: str) -> str:
    """The same path, if it stays below its root. Raises `UserError` otherwise."""
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or "\\" in path or "\0" in path or ".." in parts:
        raise UserError(f"{path!r}: refused, such a path could leave its folder")
    return path


def manifest_of(files: Mapping[str, bytes | Path]) -> bytes:
    """The manifest of a bundle's files: JSON `{"files": {path: {"size": bytes, "sha256": hex}}}`."""
    described = {}
    for path, content in sorted(files.items()):
        data = content if isinstance(content, bytes) else content.read_bytes()
        described[safe_path(path)] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return json.dumps({"files": described}, indent=1).encode()


def check_file(bundle: str, path: str, data: bytes, manifest: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
    """Raises `DamagedBundle` unless `data` is what the manifest says of the file at `path`."""
    said = manifest["files"][path]
    if len(data) != said["size"]:
        raise DamagedBundle(f"{bundle}: damaged, {path} has {len(data)} bytes instead of {said['size']}")
    if hashlib.sha256(data).hexdigest() != said["sha256"]:
        raise DamagedBundle(f"{bundle}: damaged, the content of {path} is not what was written")


class LocalStorage:
    """A folder. Files and bundles appear by renaming from a name that no reader takes for one."""

    def __init__(self, root: str | Path) -> None:
        self.url = str(root)
        self._root = Path(root).expanduser().absolute()

    def _path(self, path: str) -> Path:
        return self._root / safe_path(path) if path else self._root

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Storage.entries`. A root that is missing or no folder is a `UserError`."""
        if not self._root.is_dir():
            raise UserError(f"{self.url}: {'not a folder' if self._root.exists() else 'no such folder'}")
        top = self._path(prefix)
        found = []
        for folder, folders, names in os.walk(top, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(_TEMPORARY)]
            for name in names:
                if not name.startswith(_TEMPORARY):
                    path = Path(folder) / name
                    stat = path.stat()
                    entry = Entry(path.relative_to(self._root).as_posix(), stat.st_size, str(stat.st_mtime_ns))
                    found.append(entry)
        yield from sorted(found)

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        try:
            return self._path(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(f"{self._path(path)}: cannot be read: {error.strerror}") from error

    def write(self, path: str, data: bytes) -> None:
        """See `Storage.write`."""
        target = self._path(path)
        temporary = target.parent / f"{_TEMPORARY}{os.getpid()}-{target.name}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_synced(temporary, data)
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise UserError(f"{target}: cannot be written: {error.strerror}") from error

    def delete(self, prefix: str) -> None:
        """See `Storage.delete`."""
        path = self._path(prefix)
        if path.is_dir():
            # Renamed first, so that a bundle vanishes as a whole too.
            doomed = path.parent / f"{_TEMPORARY}{os.getpid()}-{path.name}"
            path.rename(doomed)
            shutil.rmtree(doomed)
        else:
            path.unlink(missing_ok=True)

    def bundles(self, prefix: str = "") -> list[str]:
        """See `Storage.bundles`."""
        top = self._path(prefix)
        if not top.is_dir():
            return []
        return sorted(
            path.name for path in top.iterdir() if not path.name.startswith(".") and (path / MANIFEST).is_file()
        )

    def write_bundle(self, name: str, files: Mapping[str, bytes | Path]) -> bool:
        """See `Storage.write_bundle`."""
        target = self._path(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target.parent))
            try:
                for path, content in {**files, MANIFEST: manifest_of(files)}.items():
                    file = temporary / safe_path(path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    _write_synced(file, content if isinstance(content, bytes) else content.read_bytes())
                temporary.chmod(0o755)
                return _rename_new(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise UserError(f"{target}: cannot be written: {error.strerror}") from error

    def read_bundle(self, name: str, into: Path | None = None) -> dict[str, bytes]:
        """See `Storage.read_bundle`."""
        folder = self._path(name)
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            files = {}
            for path in manifest["files"]:
                files[path] = (folder / safe_path(path)).read_bytes()
                check_file(str(folder), path, files[path], manifest)
        except FileNotFoundError as error:
            if not (folder / MANIFEST).exists():
                raise
            raise DamagedBundle(f"{folder}: damaged, {Path(error.filename).name} is missing") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedBundle(f"{folder}: damaged, {error}") from error
        if into is None:
            return files
        LocalStorage(into.parent).write_bundle(into.name, files)
        return {}

    def sweep(self, prefix: str = "") -> None:
        """See `Storage.sweep`."""
        top = self._path(prefix)
        for path in top.rglob(f"{_TEMPORARY}*") if top.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _raise(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be listed: {error.strerror}") from error


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rename_new(source: Path, target: Path) -> bool:
    """Renames a folder unless the target exists; a rename onto a folder that is not empty fails by itself."""
    try:
        source.rename(target)
    except OSError:
        if target.exists():
            return False
        raise
    return True
