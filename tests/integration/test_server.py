"""The server as a process: its start and stop, its limits, and what it does beside TF Serving's routes."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import urllib3
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client import ClientError, GrpcClient, RestClient
from serving.commands.run import tf_serving_command
from serving.errors import Code
from tests.serving_support import NAME, ROOT, Server, environment, export, run_serving

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[Server]:
    """A server with room for four requests of at most 1 MiB."""
    with Server(models, "--queue", "4", "--max-body", "1", "--threads", "1") as running:
        yield running


class Upload:
    """A request whose body is sent bit by bit."""

    def __init__(self, server: Server, length: int, path: str = f"/v1/models/{NAME}:predict") -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
        self._socket.sendall(head.encode())

    def send(self, data: bytes) -> None:
        """Sends a part of the body."""
        self._socket.sendall(data)

    def answer(self) -> tuple[int, str]:
        """The status and the body."""
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        return response.status, response.read().decode()

    def close(self) -> None:
        """Breaks the connection off."""
        self._socket.close()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def post(server: Server, body: bytes, **headers: str) -> urllib3.BaseHTTPResponse:
    url = f"{server.url}/v1/models/{NAME}:predict"
    return urllib3.request("POST", url, body=body, headers=headers, retries=False, timeout=60)


def scan_body(scan: bytes) -> bytes:
    import base64

    instance = {"b64": base64.b64encode(scan).decode()}
    return json.dumps({"signature_name": "predict_bytes", "instances": [instance]}).encode()


def test_grpc_health_is_serving(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_compressed_body_is_unpacked(server: Server, scans: dict[str, bytes]) -> None:
    body = scan_body(scans["gray.png"])
    plain = post(server, body)
    packed = post(server, gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert (packed.status, packed.data) == (200, plain.data)


def test_a_compressed_body_that_is_none_is_refused(server: Server) -> None:
    assert post(server, b"no gzip", **{"Content-Encoding": "gzip"}).status == 400


def test_bytes_that_are_no_message_are_the_callers_fault(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff", timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_tensor_that_claims_more_than_memory_holds_is_refused(server: Server) -> None:
    from google.protobuf import text_format
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    text = """model_spec { name: "covid_ct" } inputs { key: "images" value { dtype: DT_FLOAT float_val: 0.5
        tensor_shape { dim { size: 1000000 } dim { size: 224 } dim { size: 224 } dim { size: 3 } } } }"""
    request = text_format.Parse(text, predict_pb2.PredictRequest())
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "it has more than" in caught.value.details()


def test_cors_preflight_is_as_in_tf_serving(server: Server) -> None:
    url = f"{server.url}/v1/models/{NAME}:predict"
    assert urllib3.request("OPTIONS", url, headers={"Origin": "https://example.org"}).status == 200
    assert urllib3.request("OPTIONS", url).status == 400


def test_the_page_is_told_what_is_served(server: Server) -> None:
    content = json.loads(urllib3.request("GET", f"{server.url}/versions.json").data)
    version = {"version": 1, "labels": ["stable"], "positive": "CT_COVID", "negative": "CT_NonCOVID", "threshold": 0.5}
    assert content == {"name": NAME, "versions": [{**version, "run": "seed-0"}]}


# --- limits


def test_a_body_that_is_too_large_is_refused(small: Server, scans: dict[str, bytes]) -> None:
    response = post(small, b" " * (MIB + 1))
    assert response.status == 413
    assert "more than 1048576 bytes" in json.loads(response.data)["error"]
    chunked = urllib3.request("POST", f"{small.url}/v1/models/{NAME}:predict", body=(b" " * 65536 for _ in range(17)))
    assert chunked.status == 413
    bomb = post(small, gzip.compress(b" " * 50 * MIB), **{"Content-Encoding": "gzip"})
    assert bomb.status in (400, 413)
    with GrpcClient(small.grpc) as client:
        with pytest.raises(ClientError) as caught:
            client.predict_arrays(np.zeros((2, 224, 224, 3)))
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert client.predict_bytes([scans["gray.png"]]).shape == (1,)


def test_what_does_not_fit_the_queue_is_refused_at_once(small: Server, scans: dict[str, bytes]) -> None:
    body = scan_body(scans["gray.png"])
    with ExitStack() as stack:
        held = []
        while (refused := post(small, body)).status == 200:
            held.append(stack.enter_context(Upload(small, len(body))))
            held[-1].send(body[:100])
            assert len(held) < 50
        assert len(held) >= 4
        assert refused.status == 429
        assert "try again later" in json.loads(refused.data)["error"]
        with GrpcClient(small.grpc) as client, pytest.raises(ClientError) as caught:
            client.predict_bytes([scans["gray.png"]])
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert urllib3.request("GET", f"{small.url}/v1/models/{NAME}").status == 200  # probes are not queued
        held[0].send(body[100:])
        assert held[0].answer()[0] == 200
    deadline = time.monotonic() + 20
    while post(small, body).status != 200:  # until the places of the broken connections are free again
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- start and stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_what_has_begun(models: Path, scans: dict[str, bytes], number: int) -> None:
    body = scan_body(scans["gray.png"])
    with Server(models) as server:
        with Upload(server, len(body)) as begun:
            begun.send(body[:100])
            with RestClient(server.url) as client:
                client.status()  # by now it has been read
            server.terminate(number)
            server.wait_for("stopping")
            begun.send(body[100:])
            status, content = begun.answer()
            assert status == 200
            assert len(json.loads(content)["predictions"]) == 1
        assert server.wait() == 0
        with RestClient(server.url, timeout=0.2) as client, pytest.raises(ClientError, match="no server answers there"):
            client.status()


def failed(*arguments: str, path: str | None = None) -> str:
    done = run_serving(*arguments, path=path)
    assert (done.returncode, done.stdout) == (1, ""), done
    lines = [line for line in done.stderr.splitlines() if not re.match(r"WARNING: All log|I0000", line)]
    return "\n".join(lines)


def test_a_start_that_fails_says_why_in_a_line(models: Path, server: Server, tmp_path: Path) -> None:
    run = ("run", "--built-in", "--rest-port", "0", "--grpc-port", "0", "--models")
    prefix = "covid-ct-serving run: "
    assert failed(*run, str(tmp_path)).startswith(f"{prefix}{tmp_path / NAME}: no such folder; it should hold")
    (tmp_path / NAME).mkdir()
    assert failed(*run, str(tmp_path)) == f"{prefix}{tmp_path / NAME}: no version in it can be served"
    taken = server.url.rpartition(":")[2]
    message = failed(*run, str(models), "--rest-port", taken)
    assert message.splitlines()[-1] == f"{prefix}127.0.0.1:{taken}: cannot serve REST there: Address already in use"
    taken = server.grpc.rpartition(":")[2]
    message = failed(*run, str(models), "--grpc-port", taken)
    assert message.splitlines()[-1].startswith(f"{prefix}127.0.0.1:{taken}: cannot serve gRPC there")


def test_tf_serving_is_used_where_it_is_on_the_path(models: Path, tmp_path: Path) -> None:
    program = tmp_path / "tensorflow_model_server"
    program.write_text('#!/bin/sh\necho $$ "$@"\n')
    program.chmod(0o755)
    command = [sys.executable, "-m", "serving", "run", "--models", str(models), "--rest-port", "1", "--grpc-port", "2"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment(f"{tmp_path}:{os.environ['PATH']}")
    )
    output, _ = process.communicate(timeout=60)
    expected = tf_serving_command(str(program), models, NAME, 1, 2)[1:]
    # The same process: signals and the exit code are TF Serving's own.
    assert output.split() == [str(process.pid), *expected]
    assert f"--model_base_path={models / NAME}" in expected


def test_another_name_is_served_by_its_name(tmp_path: Path, scans: dict[str, bytes]) -> None:
    export(tmp_path, name="other model")
    with Server(tmp_path, "--name", "other model") as server:
        with RestClient(server.url, name="other model") as client:
            assert client.predict_bytes([scans["gray.png"]]).shape == (1,)
            assert client.status() == {1: "AVAILABLE"}
        with RestClient(server.url) as client, pytest.raises(ClientError, match=r"Latest\(covid_ct\)"):
            client.predict_bytes([scans["gray.png"]])
