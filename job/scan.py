"""One scan of a data set, as the catalog knows it; a line of a run's `manifest.jsonl`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

PARTS = ("train", "val", "test")
"""The parts of a split: fitted on, chosen on, and never seen by training."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is known of one image file without looking at its pixels."""

    path: str
    """Below the data root, "/" between its parts: `CT_COVID/a.png`."""
    size: int
    """Bytes of the encoded file."""
    sha256: str
    """Of the encoded file, in hexadecimal."""
    label: int
    """1 for the positive class, 0 for the negative one."""
    group: str
    """The patient or source paper; scans of one group are never on two sides of a grouped split."""
    split: str
    """One of `PARTS`."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""
    mode: str
    """Pillow's name for the samples: L, RGB, RGBA, P, ..."""
    format: str
    """PNG or JPEG, by content, whatever the file's suffix says."""


def to_lines(scans: Iterable[Scan]) -> bytes:
    """The manifest: one JSON object a line, UTF-8."""
    names = [field.name for field in fields(Scan)]
    return b"".join(
        # asdict would copy every value, which takes three times as long.
        json.dumps({name: getattr(scan, name) for name in names}, ensure_ascii=False).encode() + b"\n"
        for scan in scans
    )


def from_lines(data: bytes) -> Iterator[Scan]:
    """The scans of a manifest, one at a time: as objects, all of them take twice the memory of the lines."""
    # BytesIO reads lines where they are; splitlines would copy them all first.
    return (Scan(**json.loads(line)) for line in io.BytesIO(data))
