"""Sample scans: drawings that look a little like CT slices, so that the job can be tried without any patient's data.

A chest with ribs, spine, heart, lungs with vessels, and noise; scans of the positive class have hazy opacities in the
lungs. Format, mode, size and name tell nothing of the class: what there is to learn is in the pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Plane = npt.NDArray[np.float32]

CLASSES = ("CT_NonCOVID", "CT_COVID")
"""Class folders by label."""

_SLICES = 3
"""Scans of one drawn patient."""

_NAMES = (
    "drawn-case{:04d}",
    "drawn case {:04d} (axial)",
    "drawn_case{:04d}+contrast",
    "dessiné-{:04d}",
    "drawn[{:04d}]",
)
_MODES = ("L", "RGB", "RGBA")


class Drawing(NamedTuple):
    """One encoded scan and its path, `<class>/<patient>%<slice>.<suffix>`."""

    path: str
    data: bytes


def draw(per_class: int, seed: int) -> Iterator[Drawing]:
    """`per_class` scans of each class; the same for the same seed, and the first ones do not depend on how many."""
    for label, folder in enumerate(CLASSES):
        for index in range(per_class):
            patient, slice_ = divmod(index, _SLICES)
            body = np.random.default_rng([seed, label, patient])
            style = _NAMES[int(body.integers(len(_NAMES)))].format(2 * patient + label)
            details = np.random.default_rng([seed, label, patient, slice_])
            image = _slice(body, details, opacities=bool(label))
            mode = _MODES[int(details.integers(len(_MODES)))]
            as_jpeg = mode != "RGBA" and details.random() < 0.4
            buffer = io.BytesIO()
            if as_jpeg:
                image.convert(mode).save(buffer, "JPEG", quality=int(details.integers(75, 96)))
            else:
                image.convert(mode).save(buffer, "PNG")
            yield Drawing(f"{folder}/{style}%{slice_}.{'jpg' if as_jpeg else 'png'}", buffer.getvalue())


def _slice(body: np.random.Generator, details: np.random.Generator, *, opacities: bool) -> Image.Image:
    """One slice of a patient whose build comes from `body`, with everything else from `details`."""
    width = int(body.integers(250, 400))
    height = int(width * body.uniform(0.68, 0.9))
    tilt = details.uniform(-0.1, 0.1)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - width / 2) / (width / 2), (y - height / 2) / (height / 2)
    x, y = x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)

    chest = _ellipse(x, y, 0, 0, 0.92, 0.88)
    plane = np.where(chest < 1, 0.38, 0.02).astype(np.float32)
    plane[(chest < 0.86)] = details.uniform(0.5, 0.58)
    _ribs(plane, x, y, chest, body)
    lungs = np.zeros_like(plane, dtype=bool)
    for side in (-1, 1):
        outline = _ellipse(
            x, y, side * 0.43, body.uniform(-0.08, 0.04), body.uniform(0.29, 0.35), body.uniform(0.5, 0.62)
        )
        lungs |= outline < 1
    heart = _ellipse(x, y, body.uniform(0.05, 0.16), body.uniform(-0.12, 0.02), body.uniform(0.2, 0.28), 0.34)
    lungs &= (heart >= 1) & (chest < 0.8)
    plane[lungs] = details.uniform(0.1, 0.17)
    plane[heart < 1] = details.uniform(0.56, 0.66)
    plane[_ellipse(x, y, 0, 0.62, 0.13, 0.16) < 1] = 0.85
    _haze(plane, lungs, details, spots=int(details.integers(30, 60)), radius=(0.008, 0.025), strength=(0.25, 0.5))
    if opacities:
        _haze(plane, lungs, details, spots=int(details.integers(4, 9)), radius=(0.07, 0.2), strength=(0.22, 0.42))
    noisy = plane + details.normal(0, details.uniform(0.015, 0.05), plane.shape)
    window = details.uniform(0.85, 1.15) * noisy + details.uniform(-0.04, 0.04)
    image = Image.fromarray((np.clip(window, 0, 1) * 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(details.uniform(0.4, 1.1)))


def _ellipse(x: Plane, y: Plane, cx: float, cy: float, rx: float, ry: float) -> Plane:
    """Below 1 inside an ellipse."""
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2


def _ribs(plane: Plane, x: Plane, y: Plane, chest: Plane, body: np.random.Generator) -> None:
    """Bright pieces of a ring around the lungs."""
    angle = np.arctan2(y, x)
    pieces, phase = int(body.integers(7, 11)), body.uniform(0, 2 * np.pi)
    plane[(chest > 0.76) & (chest < 0.84) & (np.sin(pieces * angle + phase) > 0.15)] = 0.9


def _haze(
    plane: Plane,
    lungs: npt.NDArray[np.bool_],
    details: np.random.Generator,
    *,
    spots: int,
    radius: tuple[float, float],
    strength: tuple[float, float],
) -> None:
    """Soft spots somewhere in the lungs; radii are shares of half the width."""
    rows, columns = np.nonzero(lungs)
    for chosen in details.integers(len(rows), size=spots):
        ry, rx = details.uniform(*radius, size=2) * plane.shape[1] / 2
        peak = details.uniform(*strength)
        # Nothing to see beyond two radii: only that box is computed.
        top, left = max(0, int(rows[chosen] - 2 * ry)), max(0, int(columns[chosen] - 2 * rx))
        box = np.s_[top : int(rows[chosen] + 2 * ry) + 2, left : int(columns[chosen] + 2 * rx) + 2]
        y, x = np.ogrid[top : top + plane[box].shape[0], left : left + plane[box].shape[1]]
        haze = peak * np.exp(-1.5 * (((x - columns[chosen]) / rx) ** 2 + ((y - rows[chosen]) / ry) ** 2))
        plane[box] = np.where(lungs[box], np.minimum(plane[box] + haze, 0.62), plane[box])
