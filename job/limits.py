"""What a scan may be, as plain numbers: shared by the TensorFlow preprocessing and by code that must not import it."""

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
