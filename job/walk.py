"""What is below a folder in which others may be writing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from job.errors import UserError
from job.files import TEMPORARY, Entry


def walk(top: Path, above: str) -> Iterator[Entry]:
    """The files below `top` in the order of their paths, with one folder's names in memory at a time."""
    try:
        with os.scandir(top) as found:
            names = sorted(
                f"{each.name}/" if each.is_dir() else each.name for each in found if not each.name.startswith(TEMPORARY)
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{top}: cannot be listed: {error.strerror}") from error
    for name in names:
        path = top / name
        if not name.isprintable() and _undecodable(name):
            raise UserError(f"{str(path)!r}: the name is not UTF-8; rename it")
        if name.endswith("/"):
            yield from walk(path, above + name)
            continue
        try:
            seen = path.stat()
        except FileNotFoundError as error:
            if path.is_symlink():
                raise UserError(f"{path}: a link that leads nowhere; remove it or mend it") from error
            continue  # removed since the folder was listed
        except OSError as error:
            raise UserError(f"{path}: cannot be looked at: {error.strerror}") from error
        if not stat.S_ISREG(seen.st_mode):
            raise UserError(f"{path}: neither a file nor a folder; remove it")
        yield Entry(above + name, seen.st_size, str(seen.st_mtime_ns))


def temporaries(top: Path) -> Iterator[Path]:
    """What is below `top` under a temporary name. Its writers may be at work: what goes meanwhile is not missed."""

    def failed(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise UserError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    for folder, inner, files in os.walk(top, onerror=failed):
        found = [name for name in (*inner, *files) if name.startswith(TEMPORARY)]
        inner[:] = [name for name in inner if not name.startswith(TEMPORARY)]
        yield from (Path(folder, name) for name in found)


def _undecodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False
