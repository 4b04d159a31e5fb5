"""Clients of a server of exported versions, TF Serving or the built-in one.

    with RestClient("http://127.0.0.1:8501") as client:
        client.predict_files(["scan.png"])  # float32 [1], the probability of the positive class

`RestClient` needs no TensorFlow; `GrpcClient` imports it for its messages.
"""

from __future__ import annotations

import base64
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import urllib3

from job.errors import UsageError, UserError
from job.limits import MAX_BYTES, SIDE
from serving.errors import Code
from serving.version import BYTES_INPUT, BYTES_SIGNATURE, OUTPUT, PIXELS_INPUT, PIXELS_SIGNATURE, VersionInfo

Floats = npt.NDArray[np.float32]
T = TypeVar("T")

_FIRST_WAIT = 0.1  # seconds before the first retry; each later wait is up to twice as long
_LONGEST_WAIT = 2.0


class ClientError(UserError):
    """A call that failed, with the status that the server, or the way to it, gave."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Client(ABC):
    """What both clients do: `RestClient(address)`, `GrpcClient(address)`.

    Every call has `timeout` seconds in all, retries included. What is UNAVAILABLE (a refused connection, HTTP 503) is
    asked again after a growing, random wait while there is time; nothing else is. Safe to use from many threads.
    """

    address: str
    """Where the server is; the class has the default."""

    def __init__(
        self,
        address: str | None = None,
        *,
        name: str = "covid_ct",
        version: int | None = None,
        label: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        if version is not None and label is not None:
            raise UsageError("a version or a label can be asked for, not both")
        if address is not None:
            self.address = address.rstrip("/")
        self.name = name
        self.version = version
        self.label = label
        self.timeout = timeout
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Makes ready what calls need; connects to nothing yet."""

    def predict_files(self, paths: Sequence[str | Path]) -> Floats:
        """Probabilities float32 [n] of n PNG or JPEG files, in one call. Raises `ClientError` or `UserError`."""
        return self.predict_bytes([read_scan(Path(path)) for path in paths])

    def predict_bytes(self, scans: Sequence[bytes]) -> Floats:
        """Probabilities float32 [n] of n encoded PNG or JPEG images, in one call. Raises `ClientError`."""
        return self._with_retries(lambda seconds: self._predict_bytes(scans, seconds), len(scans))

    def predict_arrays(self, images: npt.ArrayLike) -> Floats:
        """Probabilities float32 [n] of pixels [n, 224, 224, 3] in [0, 1], in one call. Raises `ClientError`."""
        array = np.asarray(images, np.float32)
        if array.ndim != 4 or array.shape[1:] != (SIDE, SIDE, 3):
            raise UserError(f"an array of shape {array.shape} is no batch of scans: it must be (n, {SIDE}, {SIDE}, 3)")
        return self._with_retries(lambda seconds: self._predict_arrays(array, seconds), len(array))

    def _with_retries(self, call: Callable[[float], Sequence[float]], count: int) -> Floats:
        answer = np.asarray(retrying(call, self.timeout), np.float32)
        if answer.shape != (count,):
            raise ClientError(Code.INTERNAL, f"the server answered {answer.shape} probabilities for {count} scans")
        return answer

    @abstractmethod
    def _predict_bytes(self, scans: Sequence[bytes], seconds: float) -> Sequence[float]: ...

    @abstractmethod
    def _predict_arrays(self, images: Floats, seconds: float) -> Sequence[float]: ...

    @abstractmethod
    def close(self) -> None:
        """Closes the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def retrying(call: Callable[[float], T], timeout: float) -> T:
    """What `call` gives, given the seconds left; called again while it fails with UNAVAILABLE and there is time."""
    deadline = time.monotonic() + timeout
    wait = _FIRST_WAIT
    while True:
        try:
            return call(max(deadline - time.monotonic(), 0.001))
        except ClientError as error:
            # Half fixed and half random: clients that lost one server together do not come back together.
            pause = wait * random.uniform(0.5, 1)
            if error.code is not Code.UNAVAILABLE or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        wait = min(2 * wait, _LONGEST_WAIT)


def read_scan(path: Path) -> bytes:
    """An image file's bytes. Raises `UserError` for one that cannot be read or is larger than any scan."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES} bytes; no scan")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


class RestClient(Client):
    """Asks over REST; the address is a URL."""

    address = "http://127.0.0.1:8501"

    def _open(self) -> None:
        if not self.address.startswith(("http://", "https://")):
            raise UsageError(f"{self.address}: a server's URL begins with http:// or https://")
        self._pool = urllib3.PoolManager(retries=False, maxsize=16)

    def _predict_bytes(self, scans: Sequence[bytes], seconds: float) -> Sequence[float]:
        instances = [{"b64": base64.b64encode(scan).decode("ascii")} for scan in scans]
        return self._predict({"signature_name": BYTES_SIGNATURE, "instances": instances}, seconds)

    def _predict_arrays(self, images: Floats, seconds: float) -> Sequence[float]:
        return self._predict({"signature_name": PIXELS_SIGNATURE, "instances": images.tolist()}, seconds)

    def _predict(self, body: dict[str, Any], seconds: float) -> Sequence[float]:
        if not body["instances"]:
            return []  # TF Serving refuses an empty row-format batch
        answer = self._ask("POST", f"{self._model()}:predict", seconds, json.dumps(body).encode())
        predictions: Sequence[float] = answer["predictions"]
        return predictions

    def _model(self) -> str:
        path = f"/v1/models/{quote(self.name, safe='')}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return path if self.label is None else f"{path}/labels/{quote(self.label, safe='')}"

    def status(self) -> dict[int, str]:
        """The state of each version that the server knows. Raises `ClientError`."""
        answer = retrying(
            lambda seconds: self._ask("GET", f"/v1/models/{quote(self.name, safe='')}", seconds), self.timeout
        )
        return {int(each["version"]): each["state"] for each in answer["model_version_status"]}

    def about(self) -> VersionInfo | None:
        """What the version that answers says of itself; None where the server does not tell (TF Serving)."""
        try:
            answer = retrying(lambda seconds: self._ask("GET", "/versions.json", seconds), self.timeout)
        except ClientError as error:
            if error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                raise
            return None
        for each in answer["versions"]:
            if (self.version in (None, each["version"])) and (self.label is None or self.label in each["labels"]):
                return VersionInfo(
                    self.name, each["negative"], each["positive"], each["threshold"], "", {"name": each["run"]}, ""
                )
        return None

    def _ask(self, method: str, path: str, seconds: float, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        try:
            response = self._pool.request(
                method, self.address + path, body=body, headers=headers, timeout=urllib3.Timeout(total=seconds)
            )
        except urllib3.exceptions.NewConnectionError as error:
            raise ClientError(Code.UNAVAILABLE, f"{self.address}: no server answers there") from error
        except urllib3.exceptions.TimeoutError as error:
            raise ClientError(Code.DEADLINE_EXCEEDED, f"{self.address}: no answer within {self.timeout:g} s") from error
        except urllib3.exceptions.HTTPError as error:
            raise ClientError(Code.UNKNOWN, f"{self.address}: the connection broke: {error}") from error
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if response.status == 200 and isinstance(answer, dict):
            return answer
        said = _first_line(answer.get("error")) if isinstance(answer, dict) else ""
        raise ClientError(
            _code(response.status), f"{self.address}: {response.status} {response.reason or ''}: {said}".rstrip(": ")
        )

    def close(self) -> None:
        """See `Client.close`."""
        self._pool.clear()


def _first_line(message: object) -> str:
    """What went wrong, without the names of graph nodes that TensorFlow adds below."""
    return next(iter(str(message or "").splitlines()), "").strip()


def _code(http: int) -> Code:
    return next((code for code in Code if code.http == http), Code.UNKNOWN)


class GrpcClient(Client):
    """Asks over gRPC, which sends bytes and pixels as they are: the quicker way, above all for arrays. The address is
    HOST:PORT."""

    address = "127.0.0.1:8500"

    def _open(self) -> None:
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        # Messages of any size: what is too large is the server's to say.
        options = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(self.address, [*options, ("grpc.max_reconnect_backoff_ms", 1000)])
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._failure = grpc.RpcError

    def _predict_bytes(self, scans: Sequence[bytes], seconds: float) -> Sequence[float]:
        return self._predict(BYTES_SIGNATURE, BYTES_INPUT, list(scans), "string", seconds)

    def _predict_arrays(self, images: Floats, seconds: float) -> Sequence[float]:
        return self._predict(PIXELS_SIGNATURE, PIXELS_INPUT, images, "float32", seconds)

    def _predict(self, signature: str, key: str, value: Any, dtype: str, seconds: float) -> Sequence[float]:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.name
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        elif self.label is not None:
            request.model_spec.version_label = self.label
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value, dtype))
        try:
            response = self._stub.Predict(request, timeout=seconds)
        except self._failure as error:
            code = Code[error.code().name] if error.code().name in Code.__members__ else Code.UNKNOWN
            message = (
                f"no answer within {self.timeout:g} s"
                if code is Code.DEADLINE_EXCEEDED
                else _first_line(error.details())
            )
            raise ClientError(code, f"{self.address}: {code.name}: {message}") from error
        answer: Sequence[float] = tf.make_ndarray(response.outputs[OUTPUT])
        return answer

    def close(self) -> None:
        """See `Client.close`."""
        self._channel.close()
