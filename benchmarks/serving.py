"""What a request costs: REST and gRPC, pixels and bytes, beside the same SavedModel in the process itself.

    python benchmarks/serving.py [--models ROOT] [--seconds S] [--json FILE]

Without --models it exports the default network with random weights (the cost does not depend on them) and starts the
built-in server on it; --url and --grpc name another server of the same version. Request bodies are made beforehand:
measured are the way, the server and the model, not the client's encoding. Every kind of request is checked against
the in-process answer before it is timed. Prints a Markdown table; --json writes the figures.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NAME = "covid_ct"
BATCHES = (1, 32)
TARGETS = {"times_smaller": 20.0, "times_faster": 3.0, "first_over_median": 2.0}
"""b64 JSON against float JSON (bytes on the wire, p50), and the first request of a fresh server against the median."""


def scans(count: int) -> list[bytes]:
    """Encoded 224 x 224 PNG scans of mode L, drawn with noise: as hard to compress as a real slice."""
    import io

    from PIL import Image

    from job.sample import draw

    encoded = []
    for drawing in draw((count + 1) // 2, seed=1):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(drawing.data)).convert("L").resize((224, 224)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded[:count]


def export(root: Path) -> None:
    """Exports the default network with random weights."""
    from job.model import Classifier
    from job.settings import Model
    from serving.export import export_version

    export_version(
        Classifier(Model()),
        root=str(root),
        name=NAME,
        labels=("CT_NonCOVID", "CT_COVID"),
        threshold=0.5,
        evaluation={},
        model_card="# Random weights, for a benchmark\n",
        run={"name": "benchmark"},
    )


class Server:
    """The built-in server in a process of its own."""

    def __init__(self, models: Path) -> None:
        command = [sys.executable, "-m", "serving", "run", "--built-in", "--models", str(models), "--name", NAME]
        self._process = subprocess.Popen(
            [*command, "--rest-port", "0", "--grpc-port", "0"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr
        for line in self._process.stderr:
            if line.startswith("serving "):
                words = line.replace(",", " ").split()
                self.url = next(word for word in words if word.startswith("http://"))
                self.grpc = words[words.index("grpc") + 1]
                # Nobody reads on: what it says later must not block it.
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return
        raise SystemExit("the server did not start")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)


Call = Callable[[], Any]


def rest_call(url: str, body: bytes) -> Call:
    """Sends the body, on a connection that is open already; the probabilities."""
    import urllib3

    pool = urllib3.PoolManager(retries=False, maxsize=16)
    pool.request("GET", f"{url}/v1/models/{NAME}", timeout=60)

    def call() -> list[float]:
        response = pool.request("POST", f"{url}/v1/models/{NAME}:predict", body=body, timeout=120)
        answer = json.loads(response.data)
        if response.status != 200:
            raise SystemExit(f"the server answers {response.status}: {answer}")
        return list(answer["predictions"])

    return call


def kinds(url: str, target: str, data: list[bytes], images: Any, local: Any) -> Iterator[tuple[str, int, Call]]:
    """Each way to ask for the same scans: its name, its bytes on the wire (body or message), and the call."""
    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    def grpc_call(signature: str, key: str, proto: Any) -> tuple[int, Call]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = NAME, signature
        request.inputs[key].CopyFrom(proto)
        options = [("grpc.max_send_message_length", -1)]
        stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(target, options))
        return request.ByteSize(), lambda: list(stub.Predict(request, timeout=120).outputs["probability"].float_val)

    pixels = json.dumps({"instances": images.tolist()}).encode()
    encoded = [{"b64": base64.b64encode(each).decode()} for each in data]
    text = json.dumps({"signature_name": "predict_bytes", "instances": encoded}).encode()
    yield "REST, float JSON", len(pixels), rest_call(url, pixels)
    yield "REST, b64 JSON", len(text), rest_call(url, text)
    yield "gRPC, float tensor", *grpc_call("serving_default", "images", tf.make_tensor_proto(images))
    yield "gRPC, bytes", *grpc_call("predict_bytes", "image_bytes", tf.make_tensor_proto(data, tf.string))
    strings = np.array(data, object)
    yield "in process, pixels", 0, lambda: local.predict("serving_default", {"images": images})["probability"]
    yield "in process, bytes", 0, lambda: local.predict("predict_bytes", {"image_bytes": strings})["probability"]


def latencies(call: Call, seconds: float) -> list[float]:
    """Seconds of each of as many calls, one after the other, as there is time for (at least five)."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 5:
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return taken


def throughput(call: Call, clients: int, seconds: float) -> float:
    """Calls a second of several clients at once."""
    end = time.perf_counter() + seconds
    counts = [0] * clients

    def ask(number: int) -> None:
        while time.perf_counter() < end:
            call()
            counts[number] += 1

    begun = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def measure(url: str, target: str, version: Path, seconds: float, clients: int) -> list[dict[str, Any]]:
    """One row of figures for each kind of request and each batch size."""
    import numpy as np
    import tensorflow as tf

    from job.preprocess import preprocess
    from serving.model import Model

    local = Model(version)
    rows = []
    for batch in BATCHES:
        data = scans(batch)
        images = np.asarray(preprocess(tf.constant(data)))
        expected = local.predict("serving_default", {"images": images})["probability"]
        for kind, size, call in kinds(url, target, data, images, local):
            np.testing.assert_allclose(call(), expected, rtol=0, atol=1e-6)
            taken = latencies(call, seconds)
            rows.append(
                {
                    "kind": kind,
                    "batch": batch,
                    "bytes": size,
                    "calls": len(taken),
                    "p50_ms": 1000 * statistics.median(taken),
                    "p99_ms": 1000 * float(np.percentile(taken, 99)),
                    "requests_per_second": throughput(call, clients, seconds),
                }
            )
            print(f"{kind}, batch {batch}: {rows[-1]['p50_ms']:.1f} ms", file=sys.stderr)
    local.close()
    return rows


def first_request(url: str, calls: int = 50) -> dict[str, float]:
    """The first request that a fresh server gets, and the median of the following ones, in milliseconds."""
    instance = {"b64": base64.b64encode(scans(1)[0]).decode()}
    call = rest_call(url, json.dumps({"signature_name": "predict_bytes", "instances": [instance]}).encode())
    taken = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - begun))
    return {"first_ms": taken[0], "median_ms": statistics.median(taken[1:])}


def compare(rows: list[dict[str, Any]], first: dict[str, float] | None) -> dict[str, Any]:
    """The figures that have a target."""
    by = {(row["kind"], row["batch"]): row for row in rows}
    found: dict[str, Any] = {}
    for batch in BATCHES:
        floats, encoded = by["REST, float JSON", batch], by["REST, b64 JSON", batch]
        found[f"times_smaller, batch {batch}"] = floats["bytes"] / encoded["bytes"]
        found[f"times_faster, batch {batch}"] = floats["p50_ms"] / encoded["p50_ms"]
    if first:
        found["first_over_median"] = first["first_ms"] / first["median_ms"]
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| request | scans | bytes on the wire | p50 ms | p99 ms | requests/s |", "|---|---|---|---|---|---|"]
    for row in rows:
        size = f"{row['bytes']:,}" if row["bytes"] else "-"
        figures = f"{row['p50_ms']:.1f} | {row['p99_ms']:.1f} | {row['requests_per_second']:.1f}"
        lines.append(f"| {row['kind']} | {row['batch']} | {size} | {figures} |")
    return "\n".join(lines)


def main() -> int:
    """Measures, prints, and exits with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="a folder with exported versions; the newest is measured")
    parser.add_argument("--url", help="the REST address of a server of that version")
    parser.add_argument("--grpc", help="its gRPC address")
    parser.add_argument("--seconds", type=float, default=10, help="for each figure (%(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="at once, for requests/s (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        models = args.models
        if models is None:
            models = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            export(models)
        newest = max(int(path.name) for path in (models / NAME).iterdir() if path.name.isdigit())
        url, target, first = args.url, args.grpc, None
        if url is None or target is None:
            server = stack.enter_context(Server(models))
            url, target = server.url, server.grpc
            first = first_request(url)
        rows = measure(url, target, models / NAME / str(newest), args.seconds, args.clients)
    compared = compare(rows, first)
    print(table(rows), "\n")
    missed = False
    for name, value in compared.items():
        limit = TARGETS[name.split(",")[0]]
        good = value <= limit if name == "first_over_median" else value >= limit
        missed |= not good
        print(f"{name}: {value:.1f} (target {'at most' if name == 'first_over_median' else 'at least'} {limit:g})")
    if args.json:
        machine = {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()}
        content = {"machine": machine, "clients": args.clients, "rows": rows, "first": first, "compared": compared}
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
