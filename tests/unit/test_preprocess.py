"""The one preprocessing: the same pixels as Pillow decodes, and bad input refused by the graph itself."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from job.preprocess import decode, preprocess, rescale
from tests.pictures import bad_images, encode, good_images

graph = tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)])


def oracle(data: bytes) -> np.ndarray:
    """Pillow's pixels, resized by TensorFlow."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
    resized = tf.image.resize(pixels, (224, 224), method="bilinear", antialias=True).numpy()
    return np.clip(np.round(resized), 0, 255) / 255


@pytest.mark.parametrize(("name", "data"), good_images().items())
def test_pixels_are_those_pillow_decodes(name, data):
    np.testing.assert_allclose(preprocess(tf.constant([data]))[0], oracle(data), rtol=0, atol=1e-6)
    assert graph(data).dtype == tf.uint8


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(16, 500),
    width=st.integers(16, 500),
    mode=st.sampled_from(["L", "RGB", "RGBA", "LA", "P"]),
    seed=st.integers(0, 99),
)
def test_png_of_any_size_and_mode_is_pillows(height, width, mode, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise).convert(mode), "PNG")
    np.testing.assert_allclose(rescale(graph(data)), oracle(data), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(16, 300),
    width=st.integers(16, 300),
    mode=st.sampled_from(["L", "RGB"]),
    quality=st.integers(10, 100),
    subsampling=st.sampled_from([0, 1, 2]),
)
def test_jpeg_of_any_size_and_quality_is_pillows(height, width, mode, quality, subsampling):
    small = np.random.default_rng(height).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height)).convert(mode)
    data = encode(image, "JPEG", quality=quality, subsampling=subsampling)
    np.testing.assert_allclose(rescale(graph(data)), oracle(data), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty.png", "not a PNG or JPEG"),
        ("text.png", "not a PNG or JPEG"),
        ("picture.gif", "not a PNG or JPEG"),
        ("picture.bmp", "not a PNG or JPEG"),
        ("header-only.png", "cut off within its header"),
        ("truncated.png", "Invalid PNG"),
        ("truncated.jpg", "jpeg"),
        ("dot.png", "image too small"),
        ("deep.png", "16-bit and CMYK"),
        ("cmyk.jpg", "16-bit and CMYK"),
    ],
)
def test_the_graph_refuses_what_the_catalog_refuses(name, said):
    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        graph(bad_images()[name][0])


def test_the_graph_refuses_a_huge_image_from_its_header():
    claimed = bytearray(encode(np.zeros((20, 20), np.uint8), "PNG"))
    claimed[16:24] = (30_000).to_bytes(4, "big") * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="image too large"):
        graph(bytes(claimed))


def test_rescaling_multiplies_as_keras_does():
    every = tf.range(256, dtype=tf.int32)
    np.testing.assert_array_equal(
        rescale(tf.cast(every, tf.uint8)), np.arange(256, dtype=np.float32) * np.float32(1 / 255)
    )


def test_a_batch_of_none_is_an_empty_batch():
    assert preprocess(tf.constant([], tf.string)).shape == (0, 224, 224, 3)


def test_the_real_scans_are_decoded_as_pillow_does(covid_ct):
    for path in sorted(covid_ct.glob("CT_*/*"))[::25]:
        data = path.read_bytes()
        np.testing.assert_allclose(rescale(graph(data)), oracle(data), rtol=0, atol=1e-6, err_msg=path.name)
