"""Are two pictures the same but for scale, compression, mirroring and a thin crop? Decided on pixels; NumPy only.

One picture is laid over the other by a scale and a shift for each axis, found by Gauss-Newton steps on the gray values
(Lucas and Kanade 1981; the gain and offset of the brightness are fitted along). Then two correlations must be high: of
the gray values, and of the detail that remains when a local mean is taken away. Neighbouring slices of one patient
pass the first at times and fail the second; different patients fail both by far.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Gray = npt.NDArray[np.float32]

SIDE = 128
"""Sides of the pictures that are compared, in pixels."""

SAME = ((0.9965, 0.78), (0.995, 0.88))
"""Least correlation of the gray values and of the detail: either pair will do. On COVID-CT, copies that were scaled,
saved as JPEG and cropped by up to 3% a side have 0.9954 and more with 0.78 and more; the likest slices of one patient
that are no copies have 0.9953 with 0.87, and the likest scans of different classes 0.91 with 0.3."""

_MOST = 0.2
"""Largest change of scale and shift, as a share of half a side: more is another picture, or another crop."""

_LEAST_OVERLAP = 0.6


class Likeness(NamedTuple):
    """Correlations after alignment, in [-1, 1]."""

    whole: float
    detail: float

    @property
    def same(self) -> bool:
        """Whether this is the same picture."""
        return any(self.whole >= whole and self.detail >= detail for whole, detail in SAME)


def gray(data: bytes, side: int = SIDE) -> Gray:
    """An encoded image as gray values float32 [side, side] in [0, 255], its aspect given up and alpha dropped."""
    with Image.open(io.BytesIO(data)) as image:
        # A JPEG decoder that may leave out what is shrunk away is several times as fast.
        image.draft("RGB", (2 * side, 2 * side))
        small = image.convert("RGB").convert("L").resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def likeness(one: Gray, other: Gray) -> Likeness:
    """How like two gray pictures of equal sides are, once they are aligned."""
    sides = len(one)
    smooth_one, smooth_other = _local_mean(one, 5), _local_mean(other, 5)
    everywhere = np.ones_like(one, dtype=bool)
    place = np.zeros(4)
    best, best_place = _correlation(smooth_one, smooth_other, everywhere), place
    if best < 0.5:
        return Likeness(best, 0.0)
    for _ in range(12):
        place = place + _step(smooth_one, smooth_other, place)
        if np.abs(place).max() > _MOST:
            break
        moved, inside = _moved(smooth_other, place)
        whole = _correlation(smooth_one, moved, inside)
        if inside.mean() < _LEAST_OVERLAP or whole < best + 1e-6:
            break
        best, best_place = whole, place
    moved, inside = _moved(other, best_place)
    window = sides // 14 | 1
    detail = _correlation(one - _local_mean(one, window), moved - _local_mean(moved, window), inside)
    return Likeness(best, detail)


def _step(fixed: Gray, moving: Gray, place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The change of place [4] (scale and shift along x, then y) that lays `moving` better over `fixed`."""
    moved, inside = _moved(moving, place)
    sides = len(fixed)
    along = _centres(sides)
    down, right = np.gradient(moved)
    down, right = down * (sides / 2), right * (sides / 2)
    columns = [right * along, right, down * along[:, None], down, moved, np.ones_like(moved)]
    matrix = np.stack(columns, axis=-1)[inside].astype(np.float64)
    # Not `@`: for products this small, BLAS threads cost more than they save, and far more on a busy machine.
    square, target = np.einsum("ki,kj->ij", matrix, matrix), np.einsum("ki,k->i", matrix, fixed[inside])
    damped = square + 1e-6 * np.trace(square) * np.eye(6)
    solved = np.linalg.solve(damped, target)
    gain = solved[4] if abs(solved[4]) > 0.1 else 1.0
    change: npt.NDArray[np.float64] = np.clip(solved[:4] / gain, -0.05, 0.05)
    return change


def _moved(image: Gray, place: npt.NDArray[np.float64]) -> tuple[Gray, npt.NDArray[np.bool_]]:
    """The image seen from a place (bilinear), and which of its pixels lie within the image."""
    sides = len(image)
    (low_x, part_x, in_x), (low_y, part_y, in_y) = (
        _samples(sides, scale, shift) for scale, shift in (place[:2], place[2:])
    )
    rows = image[low_y] * (1 - part_y[:, None]) + image[low_y + 1] * part_y[:, None]
    seen = rows[:, low_x] * (1 - part_x) + rows[:, low_x + 1] * part_x
    return seen.astype(np.float32), in_y[:, None] & in_x[None, :]


def _samples(sides: int, scale: float, shift: float) -> tuple[npt.NDArray[np.intp], Gray, npt.NDArray[np.bool_]]:
    at = ((_centres(sides) * (1 + scale) + shift) + 1) / 2 * sides - 0.5
    inside = (at >= 0) & (at <= sides - 1)
    at = np.clip(at, 0, sides - 1.001)
    low = at.astype(np.intp)
    return low, (at - low).astype(np.float32), inside


def _centres(sides: int) -> Gray:
    """The centres of pixels along a side from -1 to 1."""
    return ((np.arange(sides, dtype=np.float32) + 0.5) / sides * 2 - 1).astype(np.float32)


def _local_mean(image: Gray, window: int) -> Gray:
    """The mean over a square of `window` (odd) pixels around each pixel."""
    padded = np.pad(image, window // 2, mode="edge").astype(np.float64)
    sums = np.pad(padded, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    mean = sums[window:, window:] - sums[:-window, window:] - sums[window:, :-window] + sums[:-window, :-window]
    smooth: Gray = (mean / window**2).astype(np.float32)
    return smooth


def _correlation(one: Gray, other: Gray, where: npt.NDArray[np.bool_]) -> float:
    a, b = one[where].astype(np.float64), other[where].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0
