"""The contract with TF Serving: requests and what it answers, as data.

Runs against the built-in server. With TF_SERVING_REST (http://host:port) and TF_SERVING_GRPC (host:port) it runs, case
for case the same, against the TF Serving there; it must serve a version that this project exported, under the name in
TF_SERVING_NAME (covid_ct). Cases by label need TF_SERVING_LABEL there.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import urllib3
import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tests.serving_support import NAME

REST_CASES = yaml.safe_load((Path(__file__).parent / "rest_cases.yaml").read_text())
GRPC_CASES = yaml.safe_load((Path(__file__).parent / "grpc_cases.yaml").read_text())

SCANS = {
    "gray": "gray.png",
    "rgb": "rgb.png",
    "rgba": "rgba.png",
    "palette": "palette.png",
    "jpeg": "gray.jpeg",
    "colour": "rgb.jpeg",
}
REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
}


@dataclass(frozen=True)
class Endpoint:
    """The server under test, and what it serves."""

    url: str
    calls: Mapping[str, Callable[..., Any]]
    model: str
    version: int
    label: str | None
    scans: Mapping[str, bytes]
    pixels: np.ndarray
    probabilities: Mapping[str, float]

    def fill(self, text: str, bytes_as: Callable[[bytes], str]) -> str:
        """The text of a case with its $names replaced."""
        if "$label" in text and self.label is None:
            pytest.skip("the server under test has no label that is known here: set TF_SERVING_LABEL")
        values: dict[str, Callable[[], str]] = {
            "model": lambda: self.model,
            "version": lambda: str(self.version),
            "label": lambda: str(self.label),
            "one_scan": lambda: " ".join(f"dim {{ size: {side} }}" for side in (1, 224, 224, 3)),
            "unpadded": lambda: bytes_as(self.scans["gray"]).rstrip("="),
            "broken_lines": lambda: re.sub("(.{60})", r"\1\\r\\n", bytes_as(self.scans["gray"])),
            "cut_off": lambda: bytes_as(self.scans["gray"][:200]),
        }
        for name, data in self.scans.items():
            values[name] = lambda data=data: bytes_as(data)
        if bytes_as is escaped:
            values["pixels"] = lambda: bytes_as(self.pixels.tobytes())
        else:
            values["pixels"] = lambda: json.dumps(self.pixels.tolist())
            for name, number in NUMBERS.items():
                values[name] = lambda number=number: re.sub(r"0\.5", number, json.dumps(HALF.tolist()))
        return re.sub(r"\$(\w+)", lambda found: values[found[1]](), text)


NUMBERS = {"nan": "NaN", "infinity": "Infinity", "minus_infinity": "-Infinity", "ones": "1", "exponents": "5E-1"}
HALF = np.full((224, 224, 3), 0.5)


def escaped(data: bytes) -> str:
    """Bytes within the quotes of protobuf's text format."""
    return "".join(f"\\{byte:03o}" for byte in data)


def encoded(data: bytes) -> str:
    """Bytes within the quotes of `b64`."""
    return base64.b64encode(data).decode()


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest, scans: dict[str, bytes]) -> Iterator[Endpoint]:
    """The server that the environment names, or the built-in one."""
    url, target = os.environ.get("TF_SERVING_REST"), os.environ.get("TF_SERVING_GRPC")
    if url and target:
        model, label = os.environ.get("TF_SERVING_NAME", NAME), os.environ.get("TF_SERVING_LABEL")
    else:
        local = request.getfixturevalue("server")
        url, target, model, label = local.url, local.grpc, NAME, "stable"
    import tensorflow as tf

    from job.preprocess import preprocess

    chosen = {name: scans[file] for name, file in SCANS.items()}
    channel = grpc.insecure_channel(target)
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    calls = {name: getattr(prediction, name) for name in REQUESTS if hasattr(prediction, name)}
    calls["GetModelStatus"] = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name, asked.model_spec.signature_name = model, "predict_bytes"
    probabilities = {}
    for name, data in chosen.items():
        asked.inputs["image_bytes"].dtype = 7
        asked.inputs["image_bytes"].string_val[:] = [data]
        del asked.inputs["image_bytes"].tensor_shape.dim[:]
        asked.inputs["image_bytes"].tensor_shape.dim.add(size=1)
        answer = calls["Predict"](asked, timeout=60)
        probabilities[name] = answer.outputs["probability"].float_val[0]
    assert len(set(probabilities.values())) == len(probabilities), "scans that cannot be told apart prove nothing"
    yield Endpoint(
        url=url.rstrip("/"),
        calls=calls,
        model=model,
        version=answer.model_spec.version.value,
        label=label,
        scans=chosen,
        pixels=np.asarray(preprocess(tf.constant([chosen["gray"]])))[0],
        probabilities=probabilities,
    )
    channel.close()


def named(cases: list[dict[str, Any]]) -> list[Any]:
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names), "two cases of one name"
    return [pytest.param(case, id=case["name"]) for case in cases]


def test_there_are_enough_cases() -> None:
    assert len(REST_CASES) + len(GRPC_CASES) >= 80


@pytest.mark.parametrize("case", named(REST_CASES))
def test_rest(case: dict[str, Any], endpoint: Endpoint) -> None:
    method, path = next(((name.upper(), case[name]) for name in ("get", "post") if name in case), ("", ""))
    method, path = case.get("method", method), case.get("path", path)
    path = path if re.match(r"/[vV]\d/", path) else f"/v1/models/$model{path}"
    body = endpoint.fill(case["body"], encoded).encode() if "body" in case else None
    response = urllib3.request(
        method, endpoint.url + endpoint.fill(path, encoded), body=body, retries=False, timeout=60
    )
    answers = {"predictions", "outputs", "json", "count"} & case.keys()
    assert response.status == case.get("status", 200 if answers else 400), response.data[:500]
    if path.startswith("/v2"):
        return  # no answer of the API
    assert response.headers["Content-Type"].startswith("application/json")
    content = json.loads(response.data)
    for key in {"predictions", "outputs"} & answers:
        assert content == {key: pytest.approx([endpoint.probabilities[name] for name in case[key]], abs=1e-6)}
    if "count" in case:
        key = "outputs" if '"inputs"' in case["body"] else "predictions"
        assert content.keys() == {key}
        assert len(content[key]) == case["count"]
    if "json" in case:
        assert_holds(content, json.loads(endpoint.fill(json.dumps(case["json"]), encoded)))
    if "error" in case:
        assert content.keys() == {"error"}
        assert re.search(endpoint.fill(case["error"], encoded), content["error"], re.DOTALL), content["error"]


def assert_holds(actual: Any, expected: Any) -> None:
    """Every key and item that is expected is there; there may be more keys."""
    if isinstance(expected, dict):
        assert expected.keys() <= actual.keys()
        for key, value in expected.items():
            assert_holds(actual[key], value)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_holds(one, other)
    else:
        assert actual == expected


@pytest.mark.parametrize("case", named(GRPC_CASES))
def test_grpc(case: dict[str, Any], endpoint: Endpoint) -> None:
    request = text_format.Parse(endpoint.fill(case["request"], escaped), REQUESTS[case["call"]]())
    call = endpoint.calls[case["call"]]
    if "message" in case:
        with pytest.raises(grpc.RpcError) as refusal:
            call(request, timeout=60)
        details = refusal.value.details()
        assert refusal.value.code().name == case.get("code", "INVALID_ARGUMENT"), details
        assert re.search(endpoint.fill(case["message"], escaped), details, re.DOTALL), details
        return
    response = call(request, timeout=60)
    if {"answers", "count"} & case.keys():
        output = response.outputs["probability"]
        assert output.dtype == 1
        values = list(output.float_val)
        assert [each.size for each in output.tensor_shape.dim] == [len(values)]
        assert response.model_spec.name == endpoint.model
        assert response.model_spec.version.value == endpoint.version
        assert response.model_spec.signature_name == (request.model_spec.signature_name or "serving_default")
        if "answers" in case:
            assert values == pytest.approx([endpoint.probabilities[name] for name in case["answers"]], abs=1e-6)
        else:
            assert len(values) == case["count"]
    elif "metadata" in case:
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert response.metadata["signature_def"].Unpack(signatures)
        assert response.model_spec.version.value == endpoint.version
        assert {"serving_default", "predict_bytes"} <= signatures.signature_def.keys()
        assert list(signatures.signature_def["predict_bytes"].inputs) == ["image_bytes"]
        assert list(signatures.signature_def["serving_default"].inputs) == ["images"]
    else:
        states = {each.version: each.state for each in response.model_version_status}
        assert states[endpoint.version] == get_model_status_pb2.ModelVersionStatus.AVAILABLE
