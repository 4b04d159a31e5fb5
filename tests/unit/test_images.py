"""Which files are scans, and what is said of the others."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from job.images import BadImage, inspect
from tests.pictures import bad_images, encode, good_images


@pytest.mark.parametrize(("name", "data"), good_images().items())
def test_eight_bit_png_and_jpeg_of_every_mode_are_scans(name, data):
    header = inspect(name, data)
    with Image.open(io.BytesIO(data)) as image:
        assert (header.width, header.height, header.mode, header.format) == (*image.size, image.mode, image.format)


@pytest.mark.parametrize(("name", "bad"), bad_images().items())
def test_a_bad_image_is_said_in_one_line_that_names_it(name, bad):
    data, said = bad
    with pytest.raises(BadImage) as caught:
        inspect(f"CT_COVID/{name}", data)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"CT_COVID/{name}: ")
    assert "\n" not in str(caught.value)


def test_a_huge_image_is_refused_without_decoding_it():
    # 30,000 x 30,000 pixels in a few bytes: decoding them would take 900 MB or more.
    header = b"\x00\x00\x75\x30\x00\x00\x75\x30\x08\x00\x00\x00\x00"
    chunk = b"\x00\x00\x00\x0dIHDR" + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    data = b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
    with pytest.raises(BadImage, match=r"30000 x 30000 pixels, more than 64,000,000"):
        inspect("huge.png", data)


def test_a_flipped_byte_in_a_png_is_found():
    data = bytearray(encode(np.full((64, 64), 7, np.uint8), "PNG"))
    data[data.index(b"IDAT") + 10] ^= 0xFF
    with pytest.raises(BadImage, match="broken or cut off"):
        inspect("flipped.png", bytes(data))
