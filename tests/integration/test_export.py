"""What an exported version holds, and that it is whole, numbered, and independent of Keras."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import serving.export
from job.errors import UserError
from job.limits import PREPROCESSING
from job.preprocess import preprocess
from job.storage import LocalStorage, open_storage
from serving.model import Model, check_version, load_version
from serving.version import read_version_info
from tests.serving_support import LABELS, NAME, ROOT, environment, export, tiny_model


@pytest.fixture(scope="module")
def keras_model():
    return tiny_model(seed=3)


@pytest.fixture(scope="module")
def version(keras_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export")
    return root / NAME / str(export(root, seed=3, model=keras_model))


def test_a_version_says_what_it_is(version: Path) -> None:
    info = read_version_info(version)
    assert (info.name, info.negative, info.positive, info.threshold) == (NAME, *LABELS, 0.5)
    assert info.preprocessing == PREPROCESSING
    assert info.run == {"name": "seed-3", "manifest_sha256": "0" * 64}
    assert info.tensorflow == tf.__version__
    assert (version / "assets.extra/model_card.md").read_text() == "# A tiny model\n"
    evaluation = json.loads((version / "assets.extra/evaluation.json").read_text())
    assert evaluation["split"] == "grouped"
    assert {each["signature"] for each in evaluation["warmup"]} == {"serving_default", "predict_bytes"}


def test_the_threshold_itself_is_positive(version: Path) -> None:
    info = read_version_info(version)
    assert [info.label(p) for p in (0.4999, 0.5, 0.5001)] == [LABELS[0], LABELS[1], LABELS[1]]


def test_both_signatures_are_as_designed(version: Path) -> None:
    loaded = tf.saved_model.load(str(version))
    assert set(loaded.signatures) == {"serving_default", "predict_bytes"}
    pixels, encoded = loaded.signatures["serving_default"], loaded.signatures["predict_bytes"]
    assert pixels.structured_input_signature[1] == {"images": tf.TensorSpec((None, 224, 224, 3), tf.float32, "images")}
    assert encoded.structured_input_signature[1] == {"image_bytes": tf.TensorSpec((None,), tf.string, "image_bytes")}
    for signature in (pixels, encoded):
        assert {key: (spec.shape.as_list(), spec.dtype) for key, spec in signature.structured_outputs.items()} == {
            "probability": ([None], tf.float32)
        }


def test_a_version_computes_what_the_model_computes(version: Path, keras_model, scans: dict[str, bytes]) -> None:
    images = np.asarray(preprocess(tf.constant(list(scans.values()))))
    expected = keras_model(images).numpy()[:, 0]
    loaded = tf.saved_model.load(str(version)).signatures
    by_pixels = loaded["serving_default"](images=tf.constant(images))["probability"]
    by_bytes = loaded["predict_bytes"](image_bytes=tf.constant(list(scans.values())))["probability"]
    np.testing.assert_allclose(by_pixels, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(by_bytes, expected, rtol=0, atol=1e-6)
    session = Model(version)
    np.testing.assert_allclose(
        session.predict("serving_default", {"images": images})["probability"], expected, rtol=0, atol=1e-6
    )
    session.close()


def test_empty_batches_give_no_probabilities(version: Path) -> None:
    loaded = tf.saved_model.load(str(version)).signatures
    assert loaded["serving_default"](images=tf.zeros((0, 224, 224, 3)))["probability"].shape == (0,)
    assert loaded["predict_bytes"](image_bytes=tf.constant([], tf.string))["probability"].shape == (0,)


def test_loading_needs_no_keras(version: Path, scans: dict[str, bytes]) -> None:
    script = f"""
import sys
for name in ("keras", "tf_keras", "tensorflow.keras"):
    sys.modules[name] = None  # what makes an import fail
import tensorflow as tf
loaded = tf.saved_model.load({str(version)!r}).signatures["predict_bytes"]
print(float(loaded(image_bytes=tf.constant([sys.stdin.buffer.read()]))["probability"][0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=scans["gray.png"], capture_output=True, env=environment(), check=True
    )
    model = Model(version)
    images = {"image_bytes": np.array([scans["gray.png"]], object)}
    assert float(done.stdout) == pytest.approx(
        float(model.predict("predict_bytes", images)["probability"][0]), abs=1e-6
    )
    model.close()


def test_a_model_without_keras_can_be_exported(tmp_path: Path) -> None:
    module = tf.Module()
    module.weight = tf.Variable(2.0)

    class Mean:
        variables = module.variables

        def __call__(self, images: tf.Tensor) -> tf.Tensor:
            return tf.sigmoid(module.weight * tf.reduce_mean(images, axis=(1, 2, 3))[:, None])

    export(tmp_path, model=Mean())
    loaded = tf.saved_model.load(str(tmp_path / NAME / "1")).signatures["serving_default"]
    answer = loaded(images=tf.fill((2, 224, 224, 3), 0.5))["probability"]
    np.testing.assert_allclose(answer, [tf.sigmoid(1.0)] * 2, rtol=0, atol=1e-6)


def test_versions_count_up_from_the_largest(tmp_path: Path, version: Path) -> None:
    storage = LocalStorage(tmp_path)
    for number in (2, 7, 10):
        storage.write_bundle(f"{NAME}/{number}", {"x": b""})
    storage.write_bundle(f"{NAME}/latest", {"x": b""})  # no version, and none of our business
    assert export(tmp_path) == 11
    assert sorted(storage.bundles(NAME)) == ["10", "11", "2", "7", "latest"]


def test_racing_exporters_get_a_version_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four exporters see the same versions before the first of them writes one."""
    together = threading.Barrier(4, timeout=60)

    def storage(url: str) -> LocalStorage:
        opened = open_storage(url)
        listing = opened.bundles

        def bundles(prefix: str = "") -> list[str]:
            found = listing(prefix)
            together.wait()
            return found

        opened.bundles = bundles  # type: ignore[method-assign]
        return opened

    monkeypatch.setattr(serving.export, "open_storage", storage)
    models = [tiny_model(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda seed: export(tmp_path, seed, models[seed]), range(4)))
    assert sorted(numbers) == [1, 2, 3, 4]
    for seed, number in enumerate(numbers):
        folder = tmp_path / NAME / str(number)
        assert read_version_info(folder).run["name"] == f"seed-{seed}"
        check_version(folder)


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    class Broken:
        variables = ()

        def __call__(self, _: tf.Tensor) -> tf.Tensor:
            raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        export(tmp_path, model=Broken())
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(tmp_path / "models")


def test_a_good_version_loads_warm(version: Path) -> None:
    model, info = load_version(version)
    model.close()
    assert info == read_version_info(version)


def damaged(version: Path, into: Path, changes: dict[str, bytes | None], sealed: bool) -> Path:
    """A copy of a version with some files changed (None: removed); `sealed` writes a manifest that says so."""
    files = LocalStorage(version.parent).read_bundle(version.name)
    kept: dict[str, bytes] = {path: changes.get(path, data) for path, data in files.items() if path not in changes}
    kept |= {path: data for path, data in changes.items() if data is not None}
    if sealed:
        LocalStorage(into).write_bundle("1", kept)
        return into / "1"
    LocalStorage(into).write_bundle("1", files)
    for path, data in changes.items():
        if data is None:
            (into / "1" / path).unlink()
        else:
            (into / "1" / path).write_bytes(data)
    return into / "1"


WARMUP = "assets.extra/tf_serving_warmup_requests"
WEIGHTS = "variables/variables.data-00000-of-00001"


def test_checks_name_what_is_wrong_with_a_version(version: Path, tmp_path: Path) -> None:
    evaluation = json.loads((version / "assets.extra/evaluation.json").read_text())
    info = json.loads((version / "assets.extra/version.json").read_text())
    other = json.loads(json.dumps(evaluation))
    other["warmup"][2]["probability"][0] += 0.01
    less = {**evaluation, "warmup": evaluation["warmup"][:-1]}
    weights = (version / WEIGHTS).read_bytes()
    flipped = bytes([weights[0] ^ 1]) + weights[1:]
    model = (version / "saved_model.pb").read_bytes()
    cases: list[tuple[dict[str, bytes | None], bool, str]] = [
        ({WEIGHTS: flipped}, False, "the content of variables/"),
        ({WEIGHTS: weights[:-1]}, False, "has .* bytes instead of"),
        ({WEIGHTS: None}, False, "variables.data-00000-of-00001 is missing"),
        ({"MANIFEST.json": None}, False, "no complete version, it has no MANIFEST.json"),
        ({"extra.txt": b""}, False, "extra.txt is not in its manifest"),
        ({"assets.extra/version.json": None}, True, "version.json cannot be read"),
        ({"assets.extra/version.json": b"{}"}, True, "version.json: not what an export writes"),
        (
            {"assets.extra/version.json": json.dumps({**info, "preprocessing": "other-v9"}).encode()},
            True,
            f"preprocesses scans as other-v9, this program as {PREPROCESSING}",
        ),
        ({"saved_model.pb": model[: len(model) // 2]}, True, "TensorFlow cannot load it"),
        ({"saved_model.pb": None}, True, "TensorFlow cannot load it"),
        ({WEIGHTS: weights[:-4] + b"\0\0\0\0"}, True, "TensorFlow cannot load it"),
        ({"assets.extra/evaluation.json": json.dumps(other).encode()}, True, "warm-up check fails.* of rgb.png gives"),
        ({"assets.extra/evaluation.json": json.dumps(less).encode()}, True, "do not match"),
        ({"assets.extra/evaluation.json": b"nothing"}, True, "not JSON"),
        (
            {"assets.extra/tf_serving_warmup_requests": b"nothing" * 10},
            True,
            "tf_serving_warmup_requests: cannot be read",
        ),
        ({"assets.extra/tf_serving_warmup_requests": None}, True, "tf_serving_warmup_requests: cannot be read"),
    ]
    for position, (changes, sealed, message) in enumerate(cases):
        folder = damaged(version, tmp_path / str(position), changes, sealed)
        with pytest.raises(UserError, match=message) as caught:
            check_version(folder)
        assert "\n" not in str(caught.value)


def test_importing_serving_imports_neither_tensorflow_nor_ray() -> None:
    script = (
        "import sys, serving, serving.cli, serving.client, serving.version, serving.commands.run\n"
        "import serving.commands.predict\n"
        "assert not {'tensorflow', 'ray', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
