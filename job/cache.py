"""Decoded scans on this machine's disk: uint8 pixels, one file per image content, decoded once.

Files are named by the sha256 of the encoded image and the preprocessing's name, so that workers, runs and data sets
share them, and whatever a worker needs after a restart or with another share is there already. A file appears by
rename and carries the sha256 of its pixels, which is checked when a run starts.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from job.errors import UserError
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

    def fill(self, scans: Sequence[Scan], threads: int) -> int:
        """Makes sure that the pixels of all `scans` are there and intact; returns how many had to be decoded.

        Raises:
            UserError: a source has changed since it was catalogued or cannot be decoded, or the disk is full.
        """
        with ThreadPoolExecutor(threads, thread_name_prefix="cache") as pool:
            return sum(pool.map(self._ensure, {scan.sha256: scan for scan in scans}.values()))

    def read(self, scans: Sequence[Scan]) -> npt.NDArray[np.uint8]:
        """The pixels uint8 [n, 224, 224, 3] of `scans`, in their order, which `fill` has made sure of."""
        pixels = np.empty((len(scans), SIDE, SIDE, 3), np.uint8)
        for row, scan in zip(pixels, scans, strict=True):
            with self._path(scan).open("rb", buffering=0) as file:
                if file.readinto(row.data) != PIXELS:
                    raise UserError(f"{self._path(scan)}: cut off since the run started; start the run again")
        return pixels

    def _path(self, scan: Scan) -> Path:
        return self._folder / scan.sha256[:2] / f"{scan.sha256}.rgb"

    def _ensure(self, scan: Scan) -> bool:
        """Decodes one scan unless it is there; whether it had to be."""
        path = self._path(scan)
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

    from job.preprocess import decode

    name = f"{storage.url}/{scan.path}"
    try:
        data = storage.read(scan.path)
    except FileNotFoundError as error:
        raise UserError(f"{name}: gone since the run started; put it back, or start a new run") from error
    if hashlib.sha256(data).hexdigest() != scan.sha256:
        raise UserError(f"{name}: changed since the run started; put it back, or start a new run")
    try:
        pixels: npt.NDArray[np.uint8] = decode(tf.constant(data), canonical=canonical).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{name}: cannot be decoded: {error.message.splitlines()[0]}") from error
    return pixels
