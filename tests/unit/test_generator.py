"""The generators, against Keras's own on the same files; and the cache behind them."""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from job import catalog
from job.cache import PIXELS, Cache
from job.errors import UserError
from job.generator import Batches
from job.order import Order
from job.preprocess import preprocess, rescale
from job.settings import Data
from job.storage import LocalStorage
from tests.pictures import drawn_scans


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return drawn_scans(tmp_path_factory.mktemp("scans"), 25, 1)


@pytest.fixture(scope="module")
def scans(root):
    return catalog.build(Data(root=str(root), per_class=None), 0).scans


@pytest.fixture
def cache(root, tmp_path):
    return Cache(LocalStorage(root), tmp_path / "cache")


def of_all_workers(scans, cache, workers, epoch=0, batch_size=16):
    """(path by content, label) of every example, and the batches."""
    for worker in range(workers):
        batches = Batches(scans, cache, Order(len(scans), batch_size, 3), worker, workers)
        batches.fill_cache(scans, 2)
        yield from batches.epochs(epoch, epoch + 1)


def digests(images) -> list[str]:
    return [hashlib.sha256(np.asarray(image).tobytes()).hexdigest() for image in images]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_scan_is_in_an_epoch_once_with_its_label_and_pixels(root, scans, cache, workers):
    seen = Counter()
    for batch in of_all_workers(scans, cache, workers):
        assert batch.images.dtype == batch.labels.dtype == tf.float32
        assert batch.images.shape[1:] == (224, 224, 3)
        assert batch.labels.shape == (len(batch.images), 1)
        real = batch.weights.numpy() > 0
        seen.update(zip(digests(batch.images.numpy()[real]), batch.labels.numpy()[real, 0], strict=True))
    contents = [(root / scan.path).read_bytes() for scan in scans]
    wanted = Counter(zip(digests(preprocess(tf.constant(contents))), [float(s.label) for s in scans], strict=True))
    assert seen == wanted


def test_labels_and_counts_are_those_of_kerass_generator_with_the_positive_class_named(root, scans, cache):
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    theirs = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        root, target_size=(224, 224), class_mode="binary", batch_size=16, shuffle=False
    )
    assert theirs.class_indices == {"CT_COVID": 0, "CT_NonCOVID": 1}
    by_path = dict(zip(theirs.filenames, theirs.labels, strict=True))
    assert {scan.path: 1 - scan.label for scan in scans} == by_path
    ours = [float(label) for b in of_all_workers(scans, cache, 1) for label in b.labels.numpy()[b.weights > 0, 0]]
    assert Counter(1 - label for label in ours) == Counter(theirs.labels)
    assert len(ours) == theirs.samples


def test_values_are_in_the_range_of_kerass_generator(root, scans, cache):
    batch = next(of_all_workers(scans, cache, 1))
    assert batch.images.numpy().min() >= 0
    assert 0.5 < batch.images.numpy().max() <= 1


def test_an_image_is_decoded_once_and_then_comes_from_the_cache(root, scans, tmp_path):
    cache = Cache(LocalStorage(root), tmp_path / "cache")
    assert cache.fill(scans, 2) == len(scans)
    assert cache.fill(scans, 2) == 0
    assert Cache(LocalStorage(tmp_path / "elsewhere"), tmp_path / "cache").fill(scans, 2) == 0


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cache_file_is_decoded_again(root, scans, tmp_path, damage):
    cache = Cache(LocalStorage(root), tmp_path)
    cache.fill(scans[:3], 1)
    before = cache.read(scans[:3])
    file = sorted(tmp_path.rglob("*.rgb"))[0]
    content = bytearray(file.read_bytes())
    content[1000] ^= 0xFF
    file.write_bytes({"cut": bytes(content[:-9]), "flip": bytes(content), "empty": b""}[damage])
    assert cache.fill(scans[:3], 1) == 1
    np.testing.assert_array_equal(cache.read(scans[:3]), before)


def test_a_source_that_changed_or_went_is_named_and_never_used(root, scans, tmp_path):
    copy = LocalStorage(tmp_path / "copy")
    for scan in scans[:2]:
        copy.write(scan.path, (root / scan.path).read_bytes())
    cache = Cache(copy, tmp_path / "cache")
    copy.write(scans[0].path, (root / scans[1].path).read_bytes())
    with pytest.raises(UserError, match="changed since the run started"):
        cache.fill(scans[:1], 1)
    copy.delete(scans[1].path)
    with pytest.raises(UserError, match="gone since the run started"):
        cache.fill(scans[1:2], 1)
    assert not list((tmp_path / "cache").rglob("*.rgb"))


def test_pixels_as_they_are_in_the_cache_become_the_rescaled_batches(scans, cache):
    batches = Batches(scans, cache, Order(len(scans), 16, 0))
    batches.fill_cache(scans, 2)
    for plain, rescaled in zip(batches.epochs(0, 2, rescaled=False), batches.epochs(0, 2), strict=True):
        assert plain.images.dtype == tf.uint8
        np.testing.assert_array_equal(rescale(plain.images), rescaled.images)
        for ours, theirs in zip(plain[1:], rescaled[1:], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_failing_read_reaches_the_consumer(scans, cache):
    batches = Batches(scans, cache, Order(len(scans), 16, 0))
    with pytest.raises(FileNotFoundError):
        next(batches.epochs(0, 1))  # the cache was not filled


def test_a_cache_file_is_the_pixels_and_their_hash(root, scans, cache, tmp_path):
    cache.fill(scans[:1], 1)
    (file,) = (tmp_path / "cache").rglob("*.rgb")
    content = file.read_bytes()
    assert hashlib.sha256(content[:PIXELS]).digest() == content[PIXELS:]


def test_a_source_that_cannot_be_decoded_is_named_in_one_line(scans, tmp_path):
    storage, content = LocalStorage(tmp_path / "source"), b"no image at all"
    storage.write("CT_COVID/a.png", content)
    scan = replace(scans[0], path="CT_COVID/a.png", sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UserError, match=r"^\S+a\.png: cannot be decoded: .*not a PNG or JPEG image") as found:
        Cache(storage, tmp_path / "cache").fill([scan], 1)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("wrong", [-1, 1])
def test_an_order_of_another_number_of_scans_is_refused(scans, cache, wrong):
    with pytest.raises(ValueError, match="an order of"):
        Batches(scans, cache, Order(len(scans) + wrong, 16, 0))


def test_a_worker_decodes_its_share_only(scans, cache):
    order = Order(len(scans), 16, 0)
    decoded = [Batches(scans, cache, order, worker, 2).fill_cache(iter(scans), 2) for worker in range(2)]
    assert sum(decoded) == len(scans)
    assert max(decoded) - min(decoded) <= order.steps
