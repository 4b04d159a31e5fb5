"""Which code was measured: a hash of what decides a run's result and speed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from job.versions import versions


def fingerprint() -> str:
    """Of the source files of job/ and serving/ and the versions of what they run on. Unlike a commit it does not
    change with the documentation, and does with what is not committed yet."""
    root, found = Path(__file__).parent.parent, hashlib.sha256(repr(sorted(versions().items())).encode())
    for path in sorted((*root.glob("job/**/*.py"), *root.glob("serving/**/*.py"))):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]
