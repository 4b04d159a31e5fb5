"""Malformed requests are the caller's fault, and the server answers on; a long mixed load loses nothing.

FUZZ_REQUESTS and SOAK_REQUESTS set how many (thousands, in full).
"""

from __future__ import annotations

import base64
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from serving.client import Client, GrpcClient, RestClient
from tests.serving_support import NAME, Server

REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}


def valid_bodies(scans: dict[str, bytes]) -> list[bytes]:
    """Requests that are answered: bytes and (few) pixels in rows and columns."""
    items = [{"b64": base64.b64encode(scan).decode()} for scan in scans.values()]
    row = {"signature_name": "predict_bytes", "instances": items[:1]}
    column = {"signature_name": "predict_bytes", "inputs": {"image_bytes": items[4:5]}}
    return [json.dumps(row).encode(), json.dumps(column).encode(), b'{"signature_name": "predict_bytes", "inputs": []}']


def valid_messages(scans: dict[str, bytes]) -> list[bytes]:
    """The same as protobuf."""
    messages = []
    for scan in list(scans.values())[:3]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = NAME, "predict_bytes"
        request.inputs["image_bytes"].dtype = 7
        request.inputs["image_bytes"].string_val.append(scan)
        request.inputs["image_bytes"].tensor_shape.dim.add(size=1)
        messages.append(request.SerializeToString())
    return messages


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The data after one to four changes: bytes flipped, cut out, doubled, inserted, or the rest cut off."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        # Half of the changes near the start, where the structure is.
        end = len(changed) if chance.random() < 0.5 else min(len(changed), 120)
        at, length = chance.randrange(end + 1), chance.choice([1, 1, 2, 8, 64])
        kind = chance.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        elif kind == 3:
            changed[at:at] = chance.randbytes(length)
        elif kind == 4 and chance.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def assert_answers(server: Server, scans: dict[str, bytes], expected: np.ndarray) -> None:
    with RestClient(server.url) as rest, GrpcClient(server.grpc) as over_grpc:
        for client in (rest, over_grpc):
            np.testing.assert_allclose(client.predict_bytes(list(scans.values())), expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def expected(server: Server, scans: dict[str, bytes]) -> np.ndarray:
    with RestClient(server.url) as client:
        return client.predict_bytes(list(scans.values()))


def test_mutated_rest_requests(
    server: Server, scans: dict[str, bytes], expected: np.ndarray, repeat: Callable[[str, int], int]
) -> None:
    chance = random.Random(7)
    statuses: Counter[int] = Counter()
    pool = urllib3.PoolManager(retries=False)
    bodies = valid_bodies(scans)
    for _ in range(repeat("FUZZ_REQUESTS", 200)):
        body = mutated(chance.choice(bodies), chance)
        response = pool.request("POST", f"{server.url}/v1/models/{NAME}:predict", body=body, timeout=60)
        statuses[response.status] += 1
        content = json.loads(response.data)
        assert response.status == 200 or 400 <= response.status < 500, (body[:200], response.data)
        assert content.keys() <= ({"predictions", "outputs"} if response.status == 200 else {"error"})
    print("\nREST:", dict(statuses))
    assert statuses[400] > 0
    assert_answers(server, scans, expected)


def test_mutated_grpc_requests(
    server: Server, scans: dict[str, bytes], expected: np.ndarray, repeat: Callable[[str, int], int]
) -> None:
    chance = random.Random(8)
    codes: Counter[Any] = Counter()
    messages = valid_messages(scans)
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for _ in range(repeat("FUZZ_REQUESTS", 200)):
            message = mutated(chance.choice(messages), chance)
            try:
                predict_pb2.PredictResponse.FromString(call(message, timeout=60))
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code()] += 1
                assert error.code() in REFUSED, (message[:200], error.details())  # noqa: PT017 (OK is fine too)
    print("\ngRPC:", dict(codes))
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > 0
    assert_answers(server, scans, expected)


def test_mutated_paths(
    server: Server, scans: dict[str, bytes], expected: np.ndarray, repeat: Callable[[str, int], int]
) -> None:
    """Sent as they are over a socket: a client library would mend them."""
    import socket

    chance = random.Random(9)
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/models/{NAME}/versions/1:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    for _ in range(repeat("FUZZ_REQUESTS", 200) // 2):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(mutated(head, chance))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        status = int(answer.split()[1]) if answer else 400  # a request that never ends has no answer
        assert 400 <= status < 500, answer
    assert_answers(server, scans, expected)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just({"b64": "iVBORw0KGgo="}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=15,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(["serving_default", "predict_bytes", "", "other"]) | values,
        "instances": values,
        "inputs": values | st.fixed_dictionaries({}, optional={"images": values, "image_bytes": values}),
        "examples": values,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents, method=st.sampled_from(["predict", "classify", "regress"]))
def test_any_json_is_answered_or_refused(server: Server, document: dict[str, Any], method: str) -> None:
    body = json.dumps(document).encode()
    response = urllib3.request("POST", f"{server.url}/v1/models/{NAME}:{method}", body=body, retries=False, timeout=60)
    assert response.status in (200, 400), response.data
    content = json.loads(response.data)
    if response.status == 200:  # only an empty batch of nothing can be
        assert content == {"outputs": []}
    else:
        assert content["error"]


def test_a_mixed_load_loses_nothing_and_memory_stays_flat(
    server: Server, scans: dict[str, bytes], expected: np.ndarray, repeat: Callable[[str, int], int]
) -> None:
    """Eight clients: bytes and pixels over REST and gRPC, batches and single scans, good and bad ones."""
    total = repeat("SOAK_REQUESTS", 1500)
    data = list(scans.values())
    pixels = np.zeros((1, 224, 224, 3), np.float32)
    with GrpcClient(server.grpc) as client:
        black = client.predict_arrays(pixels)
    failures: list[str] = []
    answered = [0] * 8
    sizes: list[int] = []

    def ask(number: int) -> None:
        chance = random.Random(number)
        client: Client = RestClient(server.url) if number % 2 else GrpcClient(server.grpc)
        with client:
            for _ in range(total // 8):
                try:
                    kind = chance.random()
                    if kind < 0.1:
                        answer, right = client.predict_arrays(pixels), black
                    elif kind < 0.2:
                        with pytest.raises(Exception, match="not a PNG or JPEG"):
                            client.predict_bytes([b"no scan"])
                        answer = right = black
                    else:
                        chosen = [chance.randrange(len(data)) for _ in range(chance.choice([1, 1, 1, 4]))]
                        answer, right = client.predict_bytes([data[i] for i in chosen]), expected[chosen]
                    if not np.allclose(answer, right, rtol=0, atol=1e-6):
                        failures.append(f"{answer} instead of {right}")
                    answered[number] += 1
                    if number == 0 and answered[0] % max(total // 80, 1) == 0:
                        sizes.append(server.memory())
                except Exception as error:  # any failure is a lost request
                    failures.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"\nsoak: {sum(answered)} requests, {len(failures)} lost, memory in MB:", [size >> 20 for size in sizes])
    assert failures == []
    assert sum(answered) == total // 8 * 8
    half = len(sizes) // 2  # by then buffers have grown to what the load needs
    assert max(sizes[half:]) < 1.1 * max(sizes[:half])
