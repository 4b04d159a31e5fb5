"""Warm-up requests: what a server asks a version before anybody else does, and what the answers must be.

TF Serving replays `assets.extra/tf_serving_warmup_requests` before a version becomes available, so that the first
real request does not pay for lazy initialisation (https://www.tensorflow.org/tfx/serving/saved_model_warmup). Here
the answers are recorded too, in `evaluation.json`: a version that does not reproduce them is not served.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from job.errors import UserError
from serving.version import (
    BYTES_INPUT,
    BYTES_SIGNATURE,
    OUTPUT,
    PIXELS_INPUT,
    PIXELS_SIGNATURE,
    WARMUP_FILE,
    read_evaluation,
)

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""Recorded and recomputed probabilities may differ by this: processors differ by some 1e-6, wrong weights by far
more."""


class Request(NamedTuple):
    """One call of a signature."""

    signature: str
    inputs: Mapping[str, Array]
    scans: Sequence[str]
    """Names of the drawn scans in it, in order."""


def drawn_scans() -> dict[str, bytes]:
    """Small seeded drawings (no patient's) as encoded files by name: every mode and both formats that are served."""
    rng = np.random.default_rng(20)
    shapes = {
        "gray.png": ("L", "PNG", 96, 80),
        "rgb.png": ("RGB", "PNG", 64, 100),
        "rgba.png": ("RGBA", "PNG", 120, 64),
        "palette.png": ("P", "PNG", 80, 80),
        "gray.jpeg": ("L", "JPEG", 130, 90),
        "rgb.jpeg": ("RGB", "JPEG", 72, 128),
    }
    return {
        name: _encode(_draw(rng, width, height), mode, form) for name, (mode, form, width, height) in shapes.items()
    }


def _draw(rng: np.random.Generator, width: int, height: int) -> Array:
    """Two dark ovals in a lighter body, with soft spots and noise: uint8 [height, width]."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    body = 170.0 * (x**2 / 0.9 + y**2 / 0.8 < 1)
    for side in (-0.42, 0.42):
        body[((x - side) ** 2 / 0.1 + y**2 / 0.35) < 1] = 40
    for _ in range(rng.integers(0, 4)):
        centre = rng.uniform(-0.5, 0.5, 2)
        body += rng.uniform(40, 120) * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 0.02)
    pixels: Array = np.clip(body + rng.normal(0, 6, body.shape), 0, 255).astype(np.uint8)
    return pixels


def _encode(pixels: Array, mode: str, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def requests(preprocess: Callable[[Sequence[bytes]], Array]) -> list[Request]:
    """The warm-up requests of both signatures; `preprocess` gives float32 [n, 224, 224, 3] for n encoded scans."""
    scans = drawn_scans()
    single = [Request(BYTES_SIGNATURE, {BYTES_INPUT: _strings([data])}, [name]) for name, data in scans.items()]
    batch = Request(BYTES_SIGNATURE, {BYTES_INPUT: _strings(scans.values())}, list(scans))
    first = next(iter(scans))
    pixels = Request(PIXELS_SIGNATURE, {PIXELS_INPUT: preprocess([scans[first]])}, [first])
    return [pixels, *single, batch]


def _strings(values: Iterable[bytes]) -> Array:
    # Objects, because numpy's own bytes type cuts trailing zeros off.
    return np.array(list(values), dtype=object)


def write_requests(folder: Path, name: str, warmup: Sequence[Request]) -> None:
    """Writes the warm-up requests into the version's `folder`, as TF Serving reads them."""
    path = folder / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in warmup:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(_to_proto(name, request))
            writer.write(log.SerializeToString())


def _to_proto(name: str, request: Request) -> Any:
    proto = predict_pb2.PredictRequest()
    proto.model_spec.name = name
    proto.model_spec.signature_name = request.signature
    for key, value in request.inputs.items():
        proto.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return proto


def read_requests(folder: Path) -> list[tuple[str, dict[str, Array]]]:
    """The signature and inputs of each warm-up request of the version in `folder`."""
    found = []
    try:
        for record in tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator():
            proto = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in proto.inputs.items()}
            found.append((proto.model_spec.signature_name, inputs))
    except Exception as error:  # whatever a damaged record makes TensorFlow or protobuf raise
        raise UserError(f"{folder / WARMUP_FILE}: cannot be read ({str(error).splitlines()[0]})") from error
    return found


def record(warmup: Sequence[Request], probabilities: Sequence[Array]) -> list[dict[str, Any]]:
    """What `evaluation.json` keeps under `warmup`: each request's signature, scans and probabilities, in order."""
    return [
        {"signature": request.signature, "scans": list(request.scans), OUTPUT: [float(p) for p in answer]}
        for request, answer in zip(warmup, probabilities, strict=True)
    ]


def replay(folder: Path, predict: Callable[[str, Mapping[str, Array]], Mapping[str, Array]]) -> None:
    """Runs the version's warm-up requests through `predict` and compares the answers with the recorded ones.

    Raises:
        UserError: no warm-up requests, no record of their answers, or other answers than recorded.
    """
    recorded = read_evaluation(folder).get("warmup")
    asked = read_requests(folder)
    if not asked or not isinstance(recorded, list) or len(recorded) != len(asked):
        raise UserError(f"{folder}: its warm-up requests and the recorded answers do not match; export it again")
    for (signature, inputs), said in zip(asked, recorded, strict=True):
        expected = np.asarray(said[OUTPUT], np.float32)
        answer = predict(signature, inputs)[OUTPUT]
        if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=0, atol=TOLERANCE):
            raise UserError(
                f"{folder}: its warm-up check fails, {signature} of {', '.join(said['scans'])} gives "
                f"{np.array2string(answer, precision=6)} where {np.array2string(expected, precision=6)} was recorded"
            )
