"""A folder as storage: files and bundles appear by renaming from a name that no reader takes for one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from job.errors import UserError
from job.files import (
    MANIFEST,
    TEMPORARY,
    ChangedFile,
    Content,
    DamagedBundle,
    Entry,
    Manifest,
    ahead,
    bundle_files,
    content_of,
    pieces_of,
    safe_path,
)
from job.walk import temporaries, walk


class LocalStorage:
    """A folder. See `job.storage.Storage` for what each method does."""

    def __init__(self, root: str | Path) -> None:
        self.url = str(root)
        self.threads = min(16, 2 * (os.cpu_count() or 1))
        self._root = Path(root).expanduser().absolute()

    def check(self) -> None:
        """See `Storage.check`."""
        if not self._root.is_dir():
            raise UserError(f"{self.url}: {'not a folder' if self._root.exists() else 'no such folder'}")

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Storage.entries`; sorted by path. Links are followed, and one that leads nowhere is a `UserError`."""
        self.check()
        top = self._path(prefix)
        if top.is_dir():
            yield from walk(top, f"{prefix}/" if prefix else "")

    def read(self, path: str, expected: Entry | None = None) -> bytes:
        """See `Storage.read`."""
        target = self._root / safe_path(path)
        try:
            with target.open("rb") as file:
                seen = os.fstat(file.fileno())
                if expected and (seen.st_size, str(seen.st_mtime_ns)) != (expected.size, expected.tag):
                    raise ChangedFile(f"{target}: changed since it was listed; start again when nobody writes there")
                data = file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            if expected:
                raise ChangedFile(f"{target}: gone since it was listed; put it back or start again") from error
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target)) from error
        except OSError as error:
            raise UserError(f"{target}: cannot be read: {error.strerror}") from error
        if expected and len(data) != expected.size:
            raise ChangedFile(f"{target}: changed while it was read; start again when nobody writes there")
        return data

    def write(self, path: str, data: bytes) -> None:
        """See `Storage.write`."""
        target = self._root / safe_path(path)
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = _beside(target)
            try:
                _write_synced(temporary, data)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)

    def delete(self, prefix: str) -> None:
        """See `Storage.delete`."""
        path = self._path(prefix)
        try:
            if path.is_dir() and not path.is_symlink():
                # Renamed first, so that a bundle vanishes as a whole too.
                doomed = _beside(path)
                path.rename(doomed)
                shutil.rmtree(doomed)
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{path}: cannot be removed: {error.strerror}") from error

    def bundles(self, prefix: str = "") -> list[str]:
        """See `Storage.bundles`."""
        top = self._path(prefix)
        try:
            names = [path.name for path in top.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"{top}: cannot be listed: {error.strerror}") from error
        return sorted(name for name in names if not name.startswith(".") and (top / name / MANIFEST).is_file())

    def manifest(self, name: str) -> Manifest:
        """See `Storage.manifest`."""
        return Manifest.from_json(str(self._path(name)), self.read(f"{name}/{MANIFEST}"))

    def write_bundle(self, name: str, files: Mapping[str, bytes | Path]) -> bool:
        """See `Storage.write_bundle`."""
        bundle_files(files)
        target = self._root / safe_path(name)
        with _writing(target):
            if _is_taken(target):
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
            try:
                described = {}
                for path, content in files.items():
                    described[path] = _write_synced(temporary / path, content)
                _write_synced(temporary / MANIFEST, Manifest(described).to_json())
                return _publish(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def read_bundle(self, name: str, into: Path | None = None) -> dict[str, bytes]:
        """See `Storage.read_bundle`."""
        manifest = self.manifest(name)

        def read(path: str) -> bytes:
            try:
                return self.read(f"{name}/{path}")
            except FileNotFoundError as error:
                if not (self._path(name) / MANIFEST).exists():
                    raise
                raise DamagedBundle(f"{self._path(name)}: damaged, {path} is missing") from error

        return collect(str(self._path(name)), manifest, read, self.threads, into)

    def sweep(self, prefix: str = "", older_than: float = 0) -> None:
        """See `Storage.sweep`."""
        top = self._path(prefix)
        before = time.time() - older_than
        for path in temporaries(top):
            try:
                if older_than and path.lstat().st_mtime > before:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except FileNotFoundError:
                continue  # it went with the folder that held it
            except OSError as error:
                raise UserError(f"{path}: cannot be removed: {error.strerror}") from error

    def _path(self, path: str) -> Path:
        return self._root / safe_path(path) if path else self._root


def collect(
    bundle: str, manifest: Manifest, read: Callable[[str], bytes], threads: int, into: Path | None
) -> dict[str, bytes]:
    """A bundle's checked files, read by `read` (from the path within the bundle); or, with `into`, that new folder.

    The folder grows under a name that only a later call for the same content takes up, which keeps the files that
    are whole: a killed download goes on where it was. A full disk gives back what the attempt took.
    """
    fetched = ((path, manifest.check(bundle, path, data)) for path, data in ahead(read, manifest.files, threads))
    if into is None:
        return dict(fetched)
    into = into.expanduser().absolute()
    name = hashlib.sha256(f"{into.name}\0{manifest.digest()}".encode()).hexdigest()[:32]
    growing = into.parent / f"{TEMPORARY}{name}"
    with _writing(into):
        into.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _locked(growing):
                if not _is_taken(into):
                    missing = [path for path in manifest.files if not _holds(growing / path, manifest.files[path])]
                    if sum(manifest.files[path].size for path in missing) > shutil.disk_usage(growing).free:
                        # Found out now rather than by filling the disk, which others need too.
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    for path, data in ahead(read, missing, threads):
                        _write_synced(growing / path, manifest.check(bundle, path, data))
                    _write_synced(growing / MANIFEST, Manifest(manifest.files).to_json())
                    if _publish(growing, into):
                        return {}
                shutil.rmtree(growing)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                shutil.rmtree(growing, ignore_errors=True)
            raise
    if LocalStorage(into.parent).manifest(into.name).digest() != manifest.digest():
        raise UserError(f"{into}: is there already and holds something else; choose another folder")
    return {}


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Says in one line why `target` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder if need be and holds it against other processes; a dead holder's lock is gone by itself."""
    while True:
        # Between any two of these lines the holder may rename the folder away, or remove it: then all begins again.
        with suppress(FileExistsError):  # not exist_ok: it looks a second time, and may find the folder gone
            folder.mkdir()
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            if _is_still(folder, held):
                yield
                return
        finally:
            os.close(held)


def _is_still(folder: Path, held: int) -> bool:
    """Whether the open folder is the one of that name."""
    try:
        return os.path.samestat(os.fstat(held), folder.stat())
    except FileNotFoundError:
        return False


def _beside(target: Path) -> Path:
    """A free temporary name in the same folder, short enough for any file system."""
    return target.parent / f"{TEMPORARY}{uuid4().hex}"


def _is_taken(target: Path) -> bool:
    """Whether something is there that a bundle must not replace; an empty folder may be."""
    try:
        return any(True for _ in target.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return target.exists()  # a file of that name; not if what should hold it is a file


def _holds(path: Path, content: Content) -> bool:
    try:
        return path.stat().st_size == content.size and content_of(path.read_bytes()) == content
    except FileNotFoundError:
        return False


def _write_synced(path: Path, content: bytes | Path) -> Content:
    """Writes a file so that a power cut cannot take it back; what was written."""
    size, digest = 0, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in pieces_of(content):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return Content(size, digest.hexdigest())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(growing: Path, target: Path) -> bool:
    """Renames a complete folder unless the target exists; a rename onto a folder that is not empty fails by itself."""
    growing.chmod(0o755)
    for folder, _, _ in os.walk(growing):
        _sync_folder(Path(folder))
    try:
        growing.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    _sync_folder(target.parent)
    return True
