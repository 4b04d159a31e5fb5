"""Small encoded pictures for tests: good ones of every kind, and bad ones with what must be said of them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from job import sample
from job.storage import LocalStorage


def encode(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """Pixels as a PNG, JPEG, ... file."""
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 90, width: int = 110, seed: int = 0) -> Image.Image:
    """Smooth random RGB, so that JPEG has something to do."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def good_images() -> dict[str, bytes]:
    """By name: every mode and container that counts as a scan."""
    image = noise()
    transparent = image.convert("P")
    return {
        "gray.png": encode(image.convert("L"), "PNG"),
        "rgb.png": encode(image, "PNG"),
        "rgba.png": encode(image.convert("RGBA"), "PNG"),
        "gray-alpha.png": encode(image.convert("LA"), "PNG"),
        "palette.png": encode(image.convert("P"), "PNG"),
        "palette-transparent.png": encode(transparent, "PNG", transparency=3),
        "one-bit.png": encode(image.convert("1"), "PNG"),
        "gray.jpg": encode(image.convert("L"), "JPEG"),
        "colour.jpg": encode(image, "JPEG", quality=90),
        "subsampled.jpg": encode(image, "JPEG", quality=60, subsampling=2),
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "jpeg-named.png": encode(image, "JPEG"),
    }


def bad_images() -> dict[str, tuple[bytes, str]]:
    """By name: content, and a part of what must be said of it."""
    image = noise()
    frames = [noise(seed=seed) for seed in range(3)]
    wide = Image.fromarray(np.arange(90 * 110, dtype=np.uint16).reshape(90, 110))
    return {
        "empty.png": (b"", "empty file (0 bytes)"),
        "truncated.png": (encode(image, "PNG")[:900], "broken or cut off"),
        "truncated.jpg": (encode(image, "JPEG")[:900], "broken or cut off"),
        "header-only.png": (encode(image, "PNG")[:20], "image"),
        "text.png": (b"this is not an image at all", "not an image"),
        "html.jpg": (b"<!DOCTYPE html><title>404</title>", "not an image"),
        "dot.png": (encode(image.resize((1, 1)), "PNG"), "1 x 1 pixels, a side under 16"),
        "strip.png": (encode(image.resize((300, 3)), "PNG"), "a side under 16"),
        "deep.png": (encode(wide, "PNG"), "16 bits per sample"),
        "cmyk.jpg": (encode(image.convert("CMYK"), "JPEG"), "CMYK"),
        "picture.gif": (encode(image, "GIF"), "a GIF image; save it as PNG or JPEG"),
        "moving.gif": (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "a GIF image"),
        "moving.png": (encode(frames[0], "PNG", save_all=True, append_images=frames[1:]), "an animation"),
        "picture.bmp": (encode(image, "BMP"), "a BMP image"),
        "picture.tif": (encode(image, "TIFF"), "a TIFF image"),
    }


def drawn_scans(folder: Path, per_class: int, seed: int) -> Path:
    """The folder, with sample scans drawn into its class folders."""
    storage = LocalStorage(folder)
    for drawing in sample.draw(per_class, seed):
        storage.write(drawing.path, drawing.data)
    return folder
