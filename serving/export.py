"""Export: a trained model becomes the next version, with all that a server needs to know of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from job.errors import UserError
from job.limits import SIDE, preprocessing_name
from job.preprocess import preprocess
from job.storage import open_storage
from serving import warmup
from serving.model import Model, start_quietly
from serving.version import (
    BYTES_INPUT,
    BYTES_SIGNATURE,
    EVALUATION_FILE,
    MODEL_CARD_FILE,
    OUTPUT,
    PIXELS_INPUT,
    PIXELS_SIGNATURE,
    VERSION_FILE,
    VersionInfo,
    version_number,
)

_MOST_RACES = 100
"""So many numbers are tried. More exporters never race: what refuses all of these is no race."""


def export_version(
    model: Callable[[tf.Tensor], tf.Tensor],
    *,
    root: str,
    name: str,
    labels: tuple[str, str],
    threshold: float,
    evaluation: Mapping[str, Any],
    model_card: str,
    run: Mapping[str, str],
    canonical: bool = False,
) -> int:
    """Writes a model as the next version under `<root>/<name>/`; the version's number.

    The version appears whole or not at all. Before it appears it is loaded from its files and asked its warm-up
    requests; the answers become part of its `evaluation.json`.

    Args:
        model: A Keras 3 model, or anything callable with `variables`, from float32 [n, 224, 224, 3] in [0, 1] to
            float32 [n, 1], the probability of the positive class. Keras is not needed to load what is written.
        root: A folder or `s3://bucket/prefix`.
        name: The model's name, as servers know it.
        labels: The names of the negative and the positive class.
        threshold: From this probability on a scan is called positive.
        evaluation: The content of `evaluation.json`.
        model_card: Markdown.
        run: Where the model comes from: the run's name, its manifest's hash and so on.
        canonical: The model was trained on canonical scans (`data.canonical`); `predict_bytes` makes them so too.

    Raises:
        UserError: the version cannot be written there.
    """
    start_quietly()
    storage = open_storage(root)
    storage.sweep(name, older_than=86_400)  # seconds: other exporters may be at work, but not for a day
    info = VersionInfo(
        name, labels[0], labels[1], threshold, preprocessing_name(canonical=canonical), dict(run), tf.__version__
    )
    with tempfile.TemporaryDirectory(prefix="covid-ct-export-") as temporary:
        folder = Path(temporary) / "version"
        module = _module(model, canonical)
        signatures = {PIXELS_SIGNATURE: module.serving_default, BYTES_SIGNATURE: module.predict_bytes}
        tf.saved_model.save(module, str(folder), signatures)
        recorded = _warm_up(folder, name, canonical)
        (folder / VERSION_FILE).write_bytes(info.to_json())
        content = json.dumps({**evaluation, "warmup": recorded}, indent=1, ensure_ascii=False)
        (folder / EVALUATION_FILE).write_text(content, encoding="utf-8")
        (folder / MODEL_CARD_FILE).write_text(model_card, encoding="utf-8")
        files: dict[str, bytes | Path] = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        for number in _numbers_from(storage.bundles(name)):
            if storage.write_bundle(f"{name}/{number}", files):
                return number
    raise UserError(f"{root}/{name}: cannot be written: something is in the way of every new version there")


def _numbers_from(taken: list[str]) -> range:
    """The numbers to try in turn: each above all that are taken; one lost to another exporter is followed by the
    next."""
    largest = max((number for each in taken if (number := version_number(each))), default=0)
    return range(largest + 1, largest + 1 + _MOST_RACES)


def _module(model: Any, canonical: bool) -> tf.Module:
    """A plain `tf.Module` with the model's variables and both signatures."""
    module = tf.Module()
    # Keras's variables wrap TensorFlow's; the wrapped ones alone are saved, so that loading needs no Keras.
    module.weights = [each if isinstance(each, tf.Variable) else each.value for each in model.variables]
    pixels = tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32, name=PIXELS_INPUT)
    encoded = tf.TensorSpec((None,), tf.string, name=BYTES_INPUT)

    def probability(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow's fused convolutions refuse an empty batch: it runs as a batch of one whose answer is cut off.
        count = tf.shape(images)[0]
        images = tf.cond(count > 0, lambda: images, lambda: tf.zeros((1, SIDE, SIDE, 3)))
        return {OUTPUT: tf.squeeze(tf.cast(model(images), tf.float32), axis=1)[:count]}

    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return probability(tf.ensure_shape(images, pixels.shape))

    def predict_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return probability(preprocess(image_bytes, canonical=canonical))

    module.serving_default = tf.function(serving_default, input_signature=[pixels])
    module.predict_bytes = tf.function(predict_bytes, input_signature=[encoded])
    return module


def _warm_up(folder: Path, name: str, canonical: bool) -> list[dict[str, Any]]:
    """Writes the warm-up requests into the version, and asks them of what was saved; the record of the answers."""
    asked = warmup.requests(lambda scans: np.asarray(preprocess(tf.constant(list(scans)), canonical=canonical)))
    warmup.write_requests(folder, name, asked)
    saved = Model(folder)
    try:
        return warmup.record(asked, [saved.predict(each.signature, each.inputs)[OUTPUT] for each in asked])
    finally:
        saved.close()
