"""What is left of the files' properties in canonical scans: the shortcut baseline on what the network sees.

A canonical scan is no file. To put the same questions to it as to the files, it counts as the gray PNG that would hold
its pixels; and of both, what their pixels still tell of how they were made is measured too: how small they compress,
bars at their edges, and colour.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from job.files import ahead
from job.scan import Scan
from job.shortcut import PROPERTIES, shortcut_baseline, shortcut_cross_validated, told_by_file

Pixels = npt.NDArray[np.uint8]

TRACES = ("png_bytes_per_pixel", "jpeg_bytes_per_pixel", "bars_left_right", "bars_top_bottom", "colour")
"""What is measured on pixels. All but the colour depend on what a scan shows, too."""

_JPEG_QUALITY = 90
_SAME_SHADE = 8
"""Levels between the darkest and the brightest pixel of a row that belongs to a bar: compression leaves a few."""


def traces(pixels: Pixels) -> dict[str, float]:
    """The `TRACES` of pixels uint8 [h, w, 3].

    Bytes per pixel of a PNG (gray if the pixels are; fastest compression) and of a JPEG of quality 90; the shares of
    columns and of rows at the edges that are of one shade; the mean difference between the channels, in levels.
    """
    red, green, blue = (np.ascontiguousarray(pixels[..., channel]) for channel in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    colour = float((brightest - np.minimum(np.minimum(red, green), blue)).mean())
    image = Image.fromarray(pixels if colour else brightest)
    return {
        "png_bytes_per_pixel": _bytes(image, "PNG", compress_level=1) / brightest.size,
        "jpeg_bytes_per_pixel": _bytes(image, "JPEG", quality=_JPEG_QUALITY) / brightest.size,
        "bars_left_right": _bars(brightest.T),
        "bars_top_bottom": _bars(brightest),
        "colour": colour,
    }


def told_by_pixels(pixels: Pixels) -> dict[str, float | str]:
    """What the PNG that holds these pixels would tell, and their `traces`."""
    height, width = pixels.shape[:2]
    found = traces(pixels)
    return {
        "width": width,
        "height": height,
        "aspect": width / height,
        "bytes_per_pixel": found["png_bytes_per_pixel"],
        "format": "PNG",
        "mode": "RGB" if found["colour"] else "L",
        **found,
    }


def before_and_after(
    scans: Sequence[Scan],
    canonical: Callable[[Scan], Pixels],
    original: Callable[[Scan], Pixels] | None,
    *,
    threads: int,
    seed: int = 0,
) -> dict[str, Any]:
    """The shortcut baseline on the files and on the canonical scans, from `PROPERTIES` and `TRACES`.

    Args:
        scans: catalogued and split, of both classes.
        canonical: a scan's pixels as the network sees them, uint8 [224, 224, 3]; called from several threads.
        original: a scan's pixels in its file, uint8 [h, w, 3]. Without it only the canonical scans are looked at, and
            only on the split in use: that is quicker.
        threads: that read, decode and compress.
        seed: of the baseline and the bootstrap.

    Returns:
        `{"files": .., "canonical": ..}`, each `{"test": .., "cross_validated": ..}` with what `shortcut_baseline` and
        `shortcut_cross_validated` return; None for what was not looked at.
    """

    kinds = ("canonical",) if original is None else ("files", "canonical")

    def look(scan: Scan) -> dict[str, dict[str, float | str]]:
        seen = {"canonical": told_by_pixels(canonical(scan))}
        if original is not None:
            seen["files"] = {**told_by_file(scan), **traces(original(scan))}
        return seen

    looked = {scan.path: seen for scan, seen in ahead(look, scans, threads)}
    names = (*PROPERTIES, *TRACES)
    fitted_on, scored = ([s for s in scans if (s.split == "test") == tested] for tested in (False, True))

    def baseline(kind: str) -> dict[str, Any]:
        def told(scan: Scan) -> dict[str, float | str]:
            return looked[scan.path][kind]

        return {
            "test": shortcut_baseline(fitted_on, scored, seed=seed, names=names, told=told),
            "cross_validated": None
            if original is None
            else shortcut_cross_validated(scans, seed=seed, names=names, told=told),
        }

    return {"files": None} | {kind: baseline(kind) for kind in kinds}


def decoded(data: bytes) -> Pixels:
    """The pixels uint8 [h, w, 3] of an encoded image, alpha dropped as the network's preprocessing drops it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _bytes(image: Image.Image, kind: str, **options: int) -> int:
    stored = io.BytesIO()
    image.save(stored, kind, **options)
    return len(stored.getvalue())


def _bars(gray: Pixels) -> float:
    """The share of rows at both ends that are of one shade."""
    plain = gray.max(axis=1).astype(int) - gray.min(axis=1) <= _SAME_SHADE
    if plain.all():
        return 1.0
    return float(np.argmin(plain) + np.argmin(plain[::-1])) / len(plain)
