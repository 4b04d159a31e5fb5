"""The one preprocessing of training and serving: encoded bytes to pixels, as TensorFlow functions.

`decode` gives the uint8 pixels that the cache keeps; `rescale` turns them into the network's input. Training runs
the first when it fills the cache and the second in its generators; `predict_bytes` runs both inside the exported
graph. Nothing else in the project resizes or scales a scan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from job.limits import CANONICAL_QUALITY, CANONICAL_SIDE, MAX_PIXELS, MIN_SIDE, SIDE

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


def decode(data: tf.Tensor, *, canonical: bool = False) -> tf.Tensor:
    """The pixels uint8 [224, 224, 3] of one encoded image, a string [] that holds a PNG or JPEG of 8-bit samples.

    Gray is repeated to three channels, palettes are looked up, alpha is dropped (as Pillow's `convert("RGB")` does).
    Bilinear with antialiasing is area-like where it shrinks and smooth where it enlarges. Rounding to uint8 here,
    once, is what makes cached pixels and served pixels the same numbers.

    With `canonical`, what the file tells besides the scan is evened out first: see `_canonical`.

    Raises:
        tf.errors.InvalidArgumentError: another format, broken data, 16-bit or CMYK samples, a side under
            `MIN_SIDE`, or more than `MAX_PIXELS` pixels (read from the header, before anything is decoded).
    """
    magic = tf.strings.substr(data, 0, 8)
    is_png = tf.equal(magic, _PNG)
    is_jpeg = tf.equal(tf.strings.substr(data, 0, 3), _JPEG)
    known = tf.debugging.Assert(is_png | is_jpeg, ["not a PNG or JPEG image"])
    with tf.control_dependencies([known]):
        height, width, plain = tf.cond(is_png, lambda: _png_header(data), lambda: _jpeg_header(data))
    pixels, short = height * width, tf.minimum(height, width)
    checks = [
        tf.debugging.Assert(
            plain, ["16-bit and CMYK images are not scans this model knows: save as 8-bit gray or RGB"]
        ),
        tf.debugging.Assert(short >= MIN_SIDE, ["image too small; sides", height, width, "the least is", MIN_SIDE]),
        tf.debugging.Assert(pixels <= MAX_PIXELS, ["image too large; sides", height, width, "most pixels", MAX_PIXELS]),
    ]
    with tf.control_dependencies(checks):
        # decode_jpeg reads PNG as well; INTEGER_ACCURATE is what Pillow uses, the default is off by up to 6 levels.
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    if canonical:
        image = _canonical(image)
    resized = tf.image.resize(image, (SIDE, SIDE), method="bilinear", antialias=True)
    return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8), (SIDE, SIDE, 3))


@functools.cache
def decoder(*, canonical: bool = False) -> Callable[[tf.Tensor], tf.Tensor]:
    """`decode` as one graph: operation by operation from Python it takes 4 ms longer per scan."""
    graph: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda data: decode(data, canonical=canonical), input_signature=[tf.TensorSpec((), tf.string)]
    )
    return graph


def rescale(pixels: tf.Tensor) -> tf.Tensor:
    """Uint8 [..., 224, 224, 3] to float32 in [0, 1], multiplied by 1/255 as Keras's `rescale=1/255` does."""
    return tf.cast(pixels, tf.float32) * tf.constant(1 / 255, tf.float32)


def preprocess(data: tf.Tensor, *, canonical: bool = False) -> tf.Tensor:
    """Encoded images, string [n], to the network's input float32 [n, 224, 224, 3] in [0, 1]; see `decode`."""
    pixels = tf.TensorSpec((SIDE, SIDE, 3), tf.uint8)
    return rescale(tf.map_fn(lambda one: decode(one, canonical=canonical), data, fn_output_signature=pixels))


def _canonical(image: tf.Tensor) -> tf.Tensor:
    """Pixels uint8 [h, w, 3] as gray ones, uint8 [96, 96, 3], that tell little of their file.

    Colour goes (luma of ITU-R BT.601, as in JPEG). The middle square is kept, because bars or a stretch to a square
    would tell the aspect ratio. All scans are reduced to one small size and pass through one JPEG compression, so that
    neither sharpness nor the traces of an earlier compression differ much.
    """
    luma = tf.tensordot(tf.cast(image, tf.float32), tf.constant([0.299, 0.587, 0.114]), 1)[..., tf.newaxis]
    height, width = tf.shape(luma)[0], tf.shape(luma)[1]
    side = tf.minimum(height, width)
    square = tf.image.crop_to_bounding_box(luma, (height - side) // 2, (width - side) // 2, side, side)
    small = tf.image.resize(square, (CANONICAL_SIDE, CANONICAL_SIDE), method="bilinear", antialias=True)
    levels = tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8)
    encoded = tf.io.encode_jpeg(levels, format="grayscale", quality=CANONICAL_QUALITY)
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _png_header(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Height and width (int64 []) from the IHDR chunk, and whether its samples have 8 bits or fewer (bool [])."""
    whole = tf.debugging.Assert(tf.strings.length(data) > 32, ["PNG image cut off within its header"])
    with tf.control_dependencies([whole]):
        header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 16, 9), tf.uint8), tf.int64)
    width, height = (
        tf.tensordot(header[i : i + 4], tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64), 1) for i in (0, 4)
    )
    return height, width, header[8] <= 8


def _jpeg_header(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Height and width (int64 []) from the frame header, and whether it has three components or fewer (bool [])."""
    shape = tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)
    return shape[0], shape[1], shape[2] <= 3
