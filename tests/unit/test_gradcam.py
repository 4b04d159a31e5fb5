"""Grad-CAM points where the evidence is, and depends on what the network learned."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from job.gradcam import grad_cam, similarity
from job.model import Classifier
from job.report.pictures import encode, overlay
from job.sample import draw
from job.settings import Model

SMALL = Model(filters=(4, 8), dense=8)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Three drawn scans, float32 [3, 224, 224, 3]."""
    drawn = [drawing.data for drawing in itertools.islice(draw(2, 0), 3)]
    return np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224))) for data in drawn]) / (
        np.float32(255)
    )


def spotting(quadrant: tuple[int, int]) -> Classifier:
    """A network set by hand: its answer is the brightness of one quadrant, and nothing else."""
    model = Classifier(Model(filters=(1,), dense=1))
    conv, dense, head = (layer for layer in model.layers if layer.weights)
    conv.set_weights([np.full((2, 2, 3, 1), 1 / 12, np.float32), np.zeros(1, np.float32)])
    seen = np.zeros((74, 74), np.float32)
    row, column = quadrant
    seen[row * 37 : (row + 1) * 37, column * 37 : (column + 1) * 37] = 1 / 37**2
    dense.set_weights([seen.reshape(-1, 1), np.zeros(1, np.float32)])
    head.set_weights([np.ones((1, 1), np.float32), np.zeros(1, np.float32)])
    return model


def test_the_map_lies_where_the_class_is_seen() -> None:
    # Two bright squares: Grad-CAM weighs whole channels, so it shows what the channel saw, for the class it speaks for.
    images = np.full((2, 224, 224, 3), 0.02, np.float32)
    images[0, 10:90, 10:90] = 1
    images[1, 140:200, 140:200] = 1
    first, second = grad_cam(spotting((0, 0)), images, np.array([True, True]))
    scale = first.shape[0] / 224
    inside = first[int(15 * scale) : int(85 * scale), int(15 * scale) : int(85 * scale)]
    assert inside.min() > 0.9
    assert first[int(100 * scale) :].max() < 0.05
    assert second[int(150 * scale) : int(190 * scale), int(150 * scale) : int(190 * scale)].min() > 0.9


def test_nothing_speaks_against_the_class_that_the_network_only_argues_for() -> None:
    image = np.ones((1, 224, 224, 3), np.float32)
    assert grad_cam(spotting((0, 0)), image, np.array([False])).max() == 0


def test_maps_are_scaled_and_of_the_last_convolution(images: np.ndarray) -> None:
    maps = grad_cam(Classifier(SMALL, seed=1), images, np.array([True, False, True]))
    assert maps.shape == (3, 73, 73)  # (224 - 1) // 3 = 74, and a 2x2 convolution takes one more
    assert maps.min() >= 0
    assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}


def test_the_map_is_the_gradient_weighted_sum_that_the_paper_defines(images: np.ndarray) -> None:
    # An oracle by finite differences: how much the logit changes when a whole channel of the features grows.
    model = Classifier(SMALL, seed=3)
    last = max(i for i, layer in enumerate(model.layers) if "conv" in layer.name)
    # All features positive: at a relu's kink a difference would see half a slope.
    model.layers[last].bias.assign(np.full(8, 1, np.float32))
    features = images[:1]
    for layer in model.layers[: last + 1]:
        features = np.asarray(layer(features))
    features = np.maximum(features, 0).astype(np.float32)

    def logit(x: np.ndarray) -> float:
        for layer in model.layers[last + 1 : -1]:
            x = np.asarray(layer(x))
        return float((x.astype(np.float64) @ model.layers[-1].kernel.numpy())[0, 0])

    step = 1e-3
    weights = np.empty(features.shape[-1])
    for channel in range(len(weights)):
        more, less = features.copy(), features.copy()
        more[..., channel] += step
        less[..., channel] -= step
        weights[channel] = (logit(more) - logit(less)) / (2 * step)
    signed = (features[0] * weights).sum(axis=-1)
    assert np.abs(signed).max() > 0
    for positive, expected in ((True, np.maximum(signed, 0)), (False, np.maximum(-signed, 0))):
        found = grad_cam(model, images[:1], np.array([positive]))[0]
        assert np.allclose(found, expected / max(expected.max(), 1e-9), atol=0.01)


def test_other_weights_give_another_map_and_the_same_weights_the_same(images: np.ndarray) -> None:
    twice = np.concatenate([images, images])
    called = np.repeat([True, False], 3)
    one, again, *others = (grad_cam(Classifier(SMALL, seed=seed), twice, called) for seed in (0, 0, 1, 2, 3))
    assert similarity(one, again) == pytest.approx(1)
    for other in others:
        alike = similarity(one, other)
        assert alike is None or abs(alike) < 0.7


def test_similarity_is_a_rank_correlation() -> None:
    from scipy.stats import spearmanr

    generator = np.random.default_rng(0)
    one = np.maximum(generator.standard_normal((4, 9, 9)), 0).astype(np.float32)
    other = np.maximum(one + generator.standard_normal((4, 9, 9)), 0).astype(np.float32)
    expected = np.mean([spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)])
    assert similarity(one, other) == pytest.approx(expected)
    assert similarity(np.zeros((1, 3, 3), np.float32), one[:1, :3, :3]) is None


def test_an_overlay_tints_where_the_map_is_bright_and_nothing_else() -> None:
    pixels = np.full((224, 224, 3), 90, np.uint8)
    heat = np.zeros((24, 24), np.float32)
    heat[:8] = 1
    tinted = overlay(pixels, heat)
    assert (tinted[120:] == pixels[120:]).all()
    assert (tinted[:50, :, 0] > 180).all()
    assert encode(tinted).startswith(b"\xff\xd8")
