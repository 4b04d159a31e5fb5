"""Decoded scans on this machine's disk: uint8 pixels, one file per image content, decoded once.

Files are named by the sha256 of the encoded image and the preprocessing's name, so that workers, runs and data sets
share them, and whatever a worker needs after a restart or with another share is there already. A file appears by
rename and carries the sha256 of its pixels, which is checked when a run starts.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from job.errors import UserError
from job.files import ahead
from job.limits import SIDE, preprocessing_name
from job.scan import Scan
from job.storage import Storage

PIXELS = SIDE * SIDE * 3
"""Bytes of one decoded scan."""

_DIGEST = hashlib.sha256().digest_size


def default_folder() -> Path:
    """`COVID_CT_CACHE`, else `covid-ct` in the user's cache folder."""
    named = os.environ.get("COVID_CT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "covid-ct"


class Cache:
    """The decoded pixels of scans, by scan. Safe to fill from several processes at once."""

    def __init__(self, storage: Storage, folder: Path | None = None, *, canonical: bool = False) -> None:
        self._storage, self._canonical = storage, canonical
        self._folder = (folder or default_folder()) / preprocessing_name(canonical=canonical)

    def fill(self, scans: Iterable[Scan], threads: int) -> int:
        """Makes sure that the pixels of all `scans` are there and intact; returns how many had to be decoded. Goes
        through `scans` once and keeps a few at a time.

        Raises:
            UserError: a source has changed since it was catalogued or cannot be decoded, or the disk is full.
        """
        return sum(decoded for _, decoded in ahead(self._ensure, scans, threads))

    def read(self, scans: Sequence[Scan]) -> npt.NDArray[np.uint8]:
        """The pixels uint8 [n, 224, 224, 3] of `scans`, in their order, which `fill` has made sure of."""
        return self.read_contents([scan.sha256 for scan in scans])

    def read_contents(self, digests: Sequence[str]) -> npt.NDArray[np.uint8]:
        """The same, by the sha256 of the encoded images."""
        pixels = np.empty((len(digests), SIDE, SIDE, 3), np.uint8)
        for row, digest in zip(pixels, digests, strict=True):
            path = self._path(digest)
            with path.open("rb", buffering=0) as file:
                if file.readinto(row.data) != PIXELS:
                    raise UserError(f"{path}: cut off since the run started; start the run again")
        return pixels

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / f"{digest}.rgb"

    def _ensure(self, scan: Scan) -> bool:
        """Decodes one scan unless it is there; whether it had to be."""
        path = self._path(scan.sha256)
        try:
            held = path.read_bytes()
        except FileNotFoundError:
            held = b""
        if len(held) == PIXELS + _DIGEST and hashlib.sha256(held[:PIXELS]).digest() == held[PIXELS:]:
            return False
        pixels = _decode(scan, self._storage, canonical=self._canonical).tobytes()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".incomplete-", delete=False) as file:
                try:
                    file.write(pixels + hashlib.sha256(pixels).digest())
                    file.flush()
                    Path(file.name).replace(path)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise UserError(
                f"{path.parent}: the cache cannot be written: {error.strerror}; make room or set COVID_CT_CACHE"
            ) from error
        return True


def _decode(scan: Scan, storage: Storage, *, canonical: bool) -> npt.NDArray[np.uint8]:
    import tensorflow as tf

    from job.preprocess import decoder

    name = f"{storage.url}/{scan.path}"
    try:
        data = storage.read(scan.path)
    except FileNotFoundError as error:
        raise UserError(f"{name}: gone since the run started; put it back, or start a new run") from error
    if hashlib.sha256(data).hexdigest() != scan.sha256:
        raise UserError(f"{name}: changed since the run started; put it back, or start a new run")
    try:
        pixels: npt.NDArray[np.uint8] = decoder(canonical=canonical)(tf.constant(data)).numpy()
    except tf.errors.InvalidArgumentError as error:
        # The last line that does not name a node says what is wrong; before it stands where.
        reasons = [line for line in error.message.splitlines() if line.strip() and "{{node" not in line]
        raise UserError(f"{name}: cannot be decoded: {reasons[-1]}") from error
    return pixels
