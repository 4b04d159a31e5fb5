"""Augmentation: Keras's transformations, drawn per scan and epoch and for nobody else."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from job import augment
from job.augment import Augmentation
from job.errors import UsageError

EVERYTHING = Augmentation(
    rotation_range=20, width_shift_range=0.1, height_shift_range=0.1, shear_range=10, zoom_range=(0.8, 1.2),
    horizontal_flip=True, brightness_range=(0.7, 1.3),
)  # fmt: skip


def pictures(n: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).random((n, 8, 8, 3), np.float32)
    return np.clip(tf.image.resize(small, (64, 64), method="bicubic").numpy(), 0, 1)


def seeds(n: int, epoch: int = 0) -> np.ndarray:
    return np.stack([np.full(n, epoch), np.arange(n)], axis=1).astype(np.int32)


@settings(max_examples=40, deadline=None)
@given(
    theta=st.floats(-40, 40),
    tx=st.floats(-9, 9),
    ty=st.floats(-9, 9),
    shear=st.floats(-25, 25),
    zx=st.floats(0.6, 1.5),
    zy=st.floats(0.6, 1.5),
)
def test_the_transformation_is_kerass(theta, tx, ty, shear, zx, zy):
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    image = pictures(1)[0]
    given_ = {"theta": theta, "tx": tx, "ty": ty, "shear": shear, "zx": zx, "zy": zy}
    theirs = ImageDataGenerator().apply_transform(image, given_)
    values = {name: tf.constant([v], tf.float32) for name, v in given_.items()}
    values |= {name: tf.constant([math.radians(given_[name])], tf.float32) for name in ("theta", "shear")}
    ours = augment.transform(image[None], augment.affine(**values, height=64, width=64))[0]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)


def test_a_scans_augmentation_does_not_depend_on_its_batch():
    images, given_ = pictures(6), seeds(6)
    whole = augment.augment(tf.constant(images), given_, EVERYTHING).numpy()
    alone = [augment.augment(tf.constant(images[i : i + 1]), given_[i : i + 1], EVERYTHING)[0] for i in range(6)]
    np.testing.assert_array_equal(whole, np.stack(alone))


def test_epochs_and_scans_differ():
    same = np.repeat(pictures(1), 4, axis=0)
    first, second = (augment.augment(tf.constant(same), seeds(4, epoch), EVERYTHING).numpy() for epoch in (0, 1))
    assert len({image.tobytes() for image in [*first, *second]}) == 8


def test_nothing_asked_for_changes_nothing():
    images = pictures(3)
    np.testing.assert_allclose(augment.augment(tf.constant(images), seeds(3), Augmentation()), images, atol=1e-5)


def test_half_of_the_scans_are_mirrored():
    image = pictures(1)[0]
    images = tf.constant(np.repeat(image[None], 400, axis=0))
    flipped = augment.augment(images, seeds(400), Augmentation(horizontal_flip=True)).numpy()
    mirrored = [np.allclose(each, image[:, ::-1], atol=1e-5) for each in flipped]
    assert all(m or np.allclose(each, image, atol=1e-5) for m, each in zip(mirrored, flipped, strict=True))
    assert 150 < sum(mirrored) < 250


def test_values_stay_in_range_and_brightness_is_a_factor():
    image = np.full((50, 8, 8, 3), 0.5, np.float32)
    bright = augment.augment(tf.constant(image), seeds(50), Augmentation(brightness_range=(0.5, 3.0))).numpy()
    assert bright.min() >= 0.25
    assert bright.max() == 1
    assert len(np.unique(bright.round(5))) > 20


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rotation": 10}, "did you mean rotation_range?"),
        ({"vertical_blur": 1}, "unknown name vertical_blur"),
        ({"rotation_range": "10"}, "must be numbers"),
        ({"rotation_range": -1}, "at least 0"),
        ({"zoom_range": 1.5}, "0 < low <= high"),
        ({"brightness_range": 0.5}, "[low, high]"),
        ({"horizontal_flip": 1}, "true or false"),
    ],
)
def test_wrong_settings_are_said(values, said):
    with pytest.raises(UsageError) as caught:
        augment.parse(values)
    assert said in str(caught.value)


def test_a_single_zoom_is_both_ways():
    assert augment.parse({"zoom_range": 0.2}) == Augmentation(zoom_range=(0.8, 1.2))
