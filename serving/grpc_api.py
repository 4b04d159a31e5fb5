"""TF Serving's gRPC API: `PredictionService` and `ModelService`, and gRPC's own health service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from serving import service
from serving.errors import ServingError, invalid
from serving.repository import Repository
from serving.service import Which
from serving.version import PIXELS_SIGNATURE
from serving.workers import Workers

Array = npt.NDArray[Any]

_MOST_MESSAGE = 1024  # characters of an error that fit in gRPC's trailers
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


def add_services(server: Any, repository: Repository, workers: Workers, max_body: int) -> None:
    """Adds the services to a `grpc.aio` server. A tensor of a request has at most `max_body` bytes."""
    calls = _Calls(repository, max_body)
    prediction = {
        "Predict": (predict_pb2.PredictRequest, calls.predict),
        "Classify": (classification_pb2.ClassificationRequest, calls.classify),
        "Regress": (regression_pb2.RegressionRequest, calls.regress),
        "GetModelMetadata": (get_model_metadata_pb2.GetModelMetadataRequest, calls.metadata),
    }
    model = {"GetModelStatus": (get_model_status_pb2.GetModelStatusRequest, calls.status)}
    for name, methods in (("PredictionService", prediction), ("ModelService", model)):
        handlers = {method: _handler(workers, kind, answer) for method, (kind, answer) in methods.items()}
        generic = grpc.method_handlers_generic_handler(f"tensorflow.serving.{name}", handlers)
        server.add_generic_rpc_handlers((generic,))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)


def _handler(workers: Workers, kind: Any, answer: Callable[[Any], Message]) -> Any:
    """A method: bytes in, bytes out, so that reading the message is the threads' work and its failure the caller's."""

    def work(data: bytes) -> bytes:
        try:
            request = kind.FromString(data)
        except DecodeError as error:
            raise invalid(f"the request is no {kind.DESCRIPTOR.name}: {error}") from error
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return bytes(answer(request).SerializeToString())

    async def call(data: bytes, context: Any) -> bytes | None:
        try:
            with workers.ticket() as ticket:
                ticket.take(len(data))
                return await ticket.run(lambda: work(data))
        except ServingError as error:
            message = error.message
            if len(message) > _MOST_MESSAGE:
                message = f"{message[:_MOST_MESSAGE]}...TRUNCATED"
            await context.abort(_STATUS_CODES[error.code.grpc], message)
        return None

    return grpc.unary_unary_rpc_method_handler(call)


class _Calls:
    def __init__(self, repository: Repository, max_body: int) -> None:
        self._repository = repository
        self._max_tensor = max_body

    def predict(self, request: Any) -> Message:
        which = _which(request.model_spec)
        signature = request.model_spec.signature_name
        response = predict_pb2.PredictResponse()
        with self._repository.version(which.version, which.label, which.name) as loaded:
            inputs = {name: self._array(name, proto) for name, proto in request.inputs.items()}
            outputs = service.predict(loaded, signature, inputs, list(request.output_filter))
            response.model_spec.name = which.name
            response.model_spec.version.value = loaded.number
            response.model_spec.signature_name = signature or PIXELS_SIGNATURE
        for name, value in outputs.items():
            proto = response.outputs[name]
            proto.dtype = tf.as_dtype(value.dtype).as_datatype_enum
            for side in value.shape:
                proto.tensor_shape.dim.add(size=side)
            proto.float_val.extend(value.ravel())
        return response

    def _array(self, name: str, proto: Any) -> Array:
        """The tensor of a proto, after a look at whether it can be one: a shape may claim what no memory holds."""
        try:
            dtype = tf.as_dtype(proto.dtype)
            sides = [each.size for each in proto.tensor_shape.dim]
            count = int(np.prod(sides, dtype=object)) if sides else 1
            if proto.tensor_shape.unknown_rank or min(sides, default=0) < 0:
                raise ValueError("its shape is not known")
            if count * max(dtype.size or 1, 1) > self._max_tensor:
                raise ValueError(f"it has more than {self._max_tensor} bytes")
            return np.asarray(tf.make_ndarray(proto)).reshape(sides)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise invalid(f"tensor parsing error: {name}: {error}") from error

    def metadata(self, request: Any) -> Message:
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        response, signatures = service.metadata(self._repository, _which(request.model_spec))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: Any) -> Message:
        return service.status(self._repository, _which(request.model_spec))

    def classify(self, request: Any) -> Message:
        return self._refuse(request, "classify")

    def regress(self, request: Any) -> Message:
        return self._refuse(request, "regress")

    def _refuse(self, request: Any, method: str) -> Message:
        which = _which(request.model_spec)
        with self._repository.version(which.version, which.label, which.name) as loaded:
            service.refuse_examples(loaded, request.model_spec.signature_name, method)
        raise AssertionError("refuse_examples always raises")


def _which(spec: Any) -> Which:
    chosen = spec.WhichOneof("version_choice")
    return Which(
        spec.name,
        spec.version.value if chosen == "version" else None,
        spec.version_label if chosen == "version_label" else None,
    )
