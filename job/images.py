"""Is this file a scan? Its header and pixels are checked once, before anything relies on them."""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from job.errors import UserError
from job.limits import MAX_BYTES, MAX_PIXELS, MIN_SIDE


class BadImage(UserError):
    """A file that cannot be a scan: which, why, and what to do."""


class Header(NamedTuple):
    """What a file says of its image. `format` is PNG or JPEG, by content."""

    width: int
    height: int
    mode: str
    format: str


def check_size(path: str, size: int) -> None:
    """Raises `BadImage` for a file of so many bytes, which then need not be read."""
    if not size:
        raise BadImage(f"{path}: empty file (0 bytes); copy it again or remove it")
    if size > MAX_BYTES:
        raise BadImage(f"{path}: {size:,} bytes, more than the {MAX_BYTES:,} allowed; save it smaller")


def inspect(path: str, data: bytes) -> Header:
    """The header of an encoded image whose pixels were decoded once to see that they are all there.

    Accepts what `job.preprocess.decode` decodes like Pillow, bit for bit: PNG and JPEG of 8-bit gray, RGB, palette,
    with or without alpha.

    Raises:
        BadImage: anything else, in one line that names `path`.
    """
    check_size(path, len(data))
    # Pillow would only warn between one and two times its own limit; ours, below, is checked for every image.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        start = data[:8]
        raise BadImage(
            f"{path}: not an image (it starts with {start!r}); remove it or save it as PNG or JPEG"
        ) from error
    except Exception as error:  # decoders of untrusted data raise nearly anything
        raise BadImage(f"{path}: broken image header ({error}); copy it again or remove it") from error
    with image:
        format = "JPEG" if image.format == "MPO" else str(image.format)
        if format not in ("PNG", "JPEG"):
            raise BadImage(f"{path}: a {format} image; save it as PNG or JPEG")
        if image.width * image.height > MAX_PIXELS:
            raise BadImage(f"{path}: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; save it smaller")
        if min(image.size) < MIN_SIDE:
            raise BadImage(
                f"{path}: {image.width} x {image.height} pixels, a side under {MIN_SIDE} is no scan; remove it"
            )
        # Pillow reads 16-bit RGB as if it had 8 bits: only the PNG header tells.
        if image.mode.startswith(("I", "F")) or (format == "PNG" and data[24] > 8):
            raise BadImage(f"{path}: 16 bits per sample; choose a window (level, width) and save it with 8")
        if image.mode == "CMYK":
            raise BadImage(f"{path}: CMYK colours (for print); save it as gray or RGB")
        if format == "PNG" and getattr(image, "is_animated", False):
            raise BadImage(f"{path}: an animation; save the one frame that is meant")
        try:
            image.load()
        except Exception as error:  # as above
            raise BadImage(f"{path}: broken or cut off ({error}); copy it again or remove it") from error
        return Header(image.width, image.height, image.mode, format)
