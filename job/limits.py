"""Plain numbers that code with TensorFlow shares with code that must not import it."""

SIDE = 224
"""Height and width of the network's input in pixels."""

MIN_SIDE = 16
"""A shorter side is refused: it is an icon or a tracking pixel, not a scan."""

MAX_PIXELS = 64_000_000
"""More pixels than this (192 MB once decoded) are refused before they are decoded."""

MAX_BYTES = 64 * 1024 * 1024
"""A larger file is refused before it is read."""

PREPROCESSING = "rgb-bilinear-224-v1"
"""Names what `job.preprocess` computes. Change it with the code: caches and exported versions carry it."""

CANONICAL = "gray-square-96-jpeg50-224-v1"
"""The same for scans made canonical (`data.canonical: true`)."""

CANONICAL_SIDE = 96
"""Pixels a side that canonical scans are reduced to, so that the sharpness of large scans is no more than the small
ones'."""

CANONICAL_QUALITY = 50
"""JPEG quality that canonical scans all pass through, so that all carry the same traces of compression."""


MICRO_BATCH = {"float32": 2, "mixed_bfloat16": 4}
"""Scans that one thread takes through the network, forward and back, at a time, by `training.precision`: few enough for
what is between the layers to stay in the processor's cache (docs/performance.md)."""


def preprocessing_name(*, canonical: bool) -> str:
    """The name of the preprocessing that a run with this `data.canonical` uses."""
    return CANONICAL if canonical else PREPROCESSING
