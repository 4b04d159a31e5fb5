"""Augmentation with the names and meanings of Keras's ImageDataGenerator, seeded per scan and epoch.

What is drawn for a scan depends on the run's seed, the epoch and the scan alone: not on the number of workers, on what
else is in the batch, or on where a run was resumed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from job.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """Ranges as Keras documents them; every value left out does nothing."""

    rotation_range: float = 0.0
    """Degrees, both ways."""
    width_shift_range: float = 0.0
    """Of the width if below 1, else pixels; both ways."""
    height_shift_range: float = 0.0
    """Of the height if below 1, else pixels; both ways."""
    shear_range: float = 0.0
    """Degrees, both ways."""
    zoom_range: tuple[float, float] = (1.0, 1.0)
    """Drawn for width and height on their own; a single number z means [1 - z, 1 + z]. Below 1 enlarges."""
    horizontal_flip: bool = False
    """Half of the scans."""
    brightness_range: tuple[float, float] = (1.0, 1.0)
    """Factor of every value, which stay within [0, 1]."""


def parse(values: Mapping[str, Any] | None) -> Augmentation | None:
    """The setting `data.augment`; None stays None. Raises `UsageError` for an unknown name or a wrong value."""
    if values is None:
        return None
    known = {field.name for field in fields(Augmentation)}
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            raise UsageError(
                f"data.augment: unknown name {name}; "
                + (f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}")
            )
        chosen[name] = _value(name, value)
    return Augmentation(**chosen)


def _value(name: str, value: Any) -> Any:
    if name == "horizontal_flip":
        if isinstance(value, bool):
            return value
        raise UsageError(f"data.augment.{name} must be true or false, not {value!r}")
    numbers = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise UsageError(f"data.augment.{name} must be numbers, not {value!r}")
    if name in ("zoom_range", "brightness_range"):
        if name == "zoom_range" and len(numbers) == 1:
            numbers = [1 - numbers[0], 1 + numbers[0]]
        if len(numbers) == 2 and 0 < numbers[0] <= numbers[1]:
            return (float(numbers[0]), float(numbers[1]))
        raise UsageError(f"data.augment.{name} must be [low, high] with 0 < low <= high, not {value!r}")
    if isinstance(value, list | tuple) or value < 0:
        raise UsageError(f"data.augment.{name} must be a number of at least 0, not {value!r}")
    return float(value)


def augment(images: tf.Tensor, seeds: tf.Tensor, ranges: Augmentation) -> tf.Tensor:
    """Images float32 [n, h, w, c] in [0, 1], each changed as its seed (int32 [n, 2]) says."""
    import tensorflow as tf

    height, width = images.shape[1], images.shape[2]
    across, down = ranges.width_shift_range, ranges.height_shift_range

    def draw(seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One scan's random numbers, and its matrix. Alone, because sines of many at once may be rounded otherwise."""
        drawn = tf.random.stateless_uniform([8], seed)

        def either_way(number: int, most: float) -> tf.Tensor:
            return (2 * drawn[number : number + 1] - 1) * most

        matrix = affine(
            theta=either_way(0, math.radians(ranges.rotation_range)),
            tx=either_way(1, across * width if across < 1 else across),
            ty=either_way(2, down * height if down < 1 else down),
            shear=either_way(3, math.radians(ranges.shear_range)),
            zx=_between(drawn[4:5], ranges.zoom_range),
            zy=_between(drawn[5:6], ranges.zoom_range),
            height=height,
            width=width,
        )
        return drawn, matrix[0]

    drawn, matrices = tf.map_fn(draw, seeds, fn_output_signature=(tf.float32, tf.float32))
    still = Augmentation(horizontal_flip=ranges.horizontal_flip, brightness_range=ranges.brightness_range)
    moved = images if ranges == still else transform(images, matrices)
    if ranges.horizontal_flip:
        moved = tf.where((drawn[:, 6] < 0.5)[:, None, None, None], moved[:, :, ::-1], moved)
    return tf.clip_by_value(moved * _between(drawn[:, 7], ranges.brightness_range)[:, None, None, None], 0, 1)


def _between(drawn: tf.Tensor, bounds: tuple[float, float]) -> tf.Tensor:
    return bounds[0] + drawn * (bounds[1] - bounds[0])


def affine(
    *,
    theta: tf.Tensor,
    tx: tf.Tensor,
    ty: tf.Tensor,
    shear: tf.Tensor,
    zx: tf.Tensor,
    zy: tf.Tensor,
    height: int,
    width: int,
) -> tf.Tensor:
    """Matrices float32 [n, 3, 3] from a pixel (x, y, 1) of the result to where it is taken from, about the centre:
    rotation, shift, shear and zoom in Keras's order. Angles in radians, shifts in pixels, each float32 [n]."""
    import tensorflow as tf

    zero, one = tf.zeros_like(theta), tf.ones_like(theta)

    def matrix(*rows: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return tf.stack([tf.stack([*row], axis=1) for row in (*rows, (zero, zero, one))], axis=1)

    cx, cy = one * (width / 2 - 0.5), one * (height / 2 - 0.5)
    steps = (
        matrix((one, zero, cx), (zero, one, cy)),
        matrix((tf.cos(theta), -tf.sin(theta), zero), (tf.sin(theta), tf.cos(theta), zero)),
        matrix((one, zero, tx), (zero, one, ty)),
        matrix((one, -tf.sin(shear), zero), (zero, tf.cos(shear), zero)),
        matrix((zx, zero, zero), (zero, zy, zero)),
        matrix((one, zero, -cx), (zero, one, -cy)),
    )
    whole = steps[0]
    for step in steps[1:]:
        whole = whole @ step
    return whole


def transform(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Images [n, h, w, c] taken from where `matrices` say: bilinear, and the nearest pixel beyond an edge."""
    import tensorflow as tf

    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.reshape(matrices, (-1, 9))[:, :8],
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
