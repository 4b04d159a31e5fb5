"""Canonical scans: what the file tells besides the scan is gone, in training and in an exported graph alike."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from job.cache import Cache
from job.preprocess import decode, preprocess
from job.sample import draw
from job.storage import LocalStorage
from tests.pictures import encode, good_images
from tests.unit.scans import made

plain = tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)])
canonical = tf.function(lambda data: decode(data, canonical=True), input_signature=[tf.TensorSpec((), tf.string)])


def drawn(count: int) -> list[bytes]:
    return [drawing.data for drawing, _ in zip(draw(count, 0), range(count), strict=False)]


@pytest.mark.parametrize(("name", "data"), good_images().items())
def test_every_scan_becomes_gray_whatever_its_mode(name: str, data: bytes) -> None:
    pixels = canonical(data).numpy()
    assert pixels.shape == (224, 224, 3)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_the_same_picture_in_another_mode_is_the_same_scan() -> None:
    gray = Image.open(io.BytesIO(drawn(1)[0])).convert("L")
    wanted = canonical(encode(gray, "PNG")).numpy()
    for mode in ("RGB", "RGBA", "LA", "P"):
        assert (canonical(encode(gray.convert(mode), "PNG")).numpy() == wanted).all(), mode


def test_the_middle_square_is_kept_at_its_aspect_ratio() -> None:
    y, x = np.mgrid[:300, :600]
    disc = (((x - 300) ** 2 + (y - 150) ** 2 < 100**2) * 200 + 20).astype(np.uint8)
    disc[:, :100] = 255  # left of the square: must not be seen
    pixels = canonical(encode(Image.fromarray(disc), "PNG")).numpy()[..., 0]
    bright = pixels > 120
    assert bright.any(axis=0).sum() == pytest.approx(bright.any(axis=1).sum(), abs=3)
    assert bright.any(axis=0).sum() == pytest.approx(200 / 300 * 224, abs=5)
    assert pixels[:, 0].max() < 120


def test_canonical_pixels_are_those_that_pillow_computes() -> None:
    for data in drawn(6):
        gray = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) @ np.float32([0.299, 0.587, 0.114])
        side = min(gray.shape)
        top, left = (gray.shape[0] - side) // 2, (gray.shape[1] - side) // 2
        square = Image.fromarray(gray[top : top + side, left : left + side].astype(np.float32))
        small = np.asarray(square.resize((96, 96), Image.Resampling.BILINEAR))
        stored = encode(Image.fromarray(np.clip(np.round(small), 0, 255).astype(np.uint8)), "JPEG", quality=50)
        opened = Image.fromarray(np.asarray(Image.open(io.BytesIO(stored)), np.float32))
        wanted = np.asarray(opened.resize((224, 224), Image.Resampling.BILINEAR))
        # A level that rounds the other way before the compression moves its block by a few levels.
        assert np.abs(canonical(data).numpy()[..., 0] - wanted).mean() < 0.5


def texture(pixels: np.ndarray) -> np.ndarray:
    """How much of each fineness there is in a picture: what compression and sharpness leave behind."""
    window = np.hanning(224)
    gray = pixels[..., 1].astype(np.float64)
    power = np.abs(np.fft.fft2((gray - gray.mean()) * window * window[:, None])) ** 2
    across = np.fft.fftfreq(224)
    ring = np.minimum((np.hypot(across, across[:, None]) * 56).astype(int), 39)
    return np.log(np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel()) + 1e-3)


def test_neither_compression_nor_size_can_be_told_from_its_texture() -> None:
    def blurred(data: bytes) -> bytes:
        image = Image.open(io.BytesIO(data)).convert("L")
        return encode(image.resize((image.width // 2, image.height // 2)), "JPEG", quality=30)

    originals = [encode(Image.open(io.BytesIO(data)).convert("L"), "PNG") for data in drawn(80)]
    told = {}
    for name, graph in (("plain", plain), ("canonical", canonical)):
        features = np.array([texture(graph(d).numpy()) for d in [*originals, *map(blurred, originals)]])
        labels = np.repeat([0, 1], len(originals))
        forest = RandomForestClassifier(100, random_state=0)
        given = cross_val_predict(forest, features, labels, cv=4, method="predict_proba")[:, 1]
        told[name] = roc_auc_score(labels, given)
    assert told["plain"] > 0.95
    assert told["canonical"] < 0.75


def test_the_cache_keeps_canonical_and_plain_pixels_apart(tmp_path) -> None:
    import hashlib

    data = drawn(1)[0]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(data)
    scan = made(path="a.png", sha256=hashlib.sha256(data).hexdigest())
    pixels = []
    for setting in (False, True):
        cache = Cache(LocalStorage(tmp_path / "data"), tmp_path / "cache", canonical=setting)
        assert cache.fill([scan], 1) == 1
        pixels.append(cache.read([scan])[0])
        rescaled = preprocess(tf.constant([data]), canonical=setting)[0].numpy()
        np.testing.assert_allclose(pixels[-1] / 255, rescaled, atol=1e-6)
    assert (pixels[0] != pixels[1]).any()
