"""Pictures for a report: scans as the network sees them, and maps laid over them; Pillow and NumPy only."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

_COLOUR = np.array([255, 150, 0], np.float32)
_STRENGTH = 0.65


def encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Pixels uint8 [h, w, 3] as JPEG: a report holds dozens of them."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=80, optimize=True)
    return data.getvalue()


def thumbnail(data: bytes, side: int = 224) -> bytes:
    """An encoded image as a small JPEG of the same aspect."""
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.BOX)
    return encode(np.asarray(small))


def overlay(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Pixels uint8 [h, w, 3] tinted by a map float32 [a, b] in [0, 1], which is enlarged to their size."""
    height, width = pixels.shape[:2]
    enlarged = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))
    share = _STRENGTH * enlarged[..., None]
    mixed: npt.NDArray[np.uint8] = np.round(pixels * (1 - share) + _COLOUR * share).clip(0, 255).astype(np.uint8)
    return mixed
