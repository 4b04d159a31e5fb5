"""The clients: the same answers over every way, and clear errors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from job.errors import UsageError, UserError
from job.preprocess import preprocess
from serving.client import Client, ClientError, GrpcClient, RestClient
from serving.errors import Code
from tests.ports import free_ports
from tests.serving_support import NAME, ROOT, Server, run_serving


@pytest.fixture(params=["rest", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with RestClient(server.url) if request.param == "rest" else GrpcClient(server.grpc) as opened:
        yield opened


def test_every_way_gives_the_probability_of_the_saved_model(
    client: Client, models: Path, scans: dict[str, bytes], tmp_path: Path
) -> None:
    """L, RGB, RGBA and palette PNG, L and RGB JPEG: as bytes, as pixels and as files, alone and in a batch."""
    loaded = tf.saved_model.load(str(models / NAME / "1")).signatures
    data = list(scans.values())
    expected = loaded["predict_bytes"](image_bytes=tf.constant(data))["probability"].numpy()
    assert len(set(expected.tolist())) == len(scans)
    images = np.asarray(preprocess(tf.constant(data)))
    by_pixels = loaded["serving_default"](images=tf.constant(images))["probability"].numpy()
    paths = [tmp_path / name for name in scans]
    for path, scan in zip(paths, data, strict=True):
        path.write_bytes(scan)
    alone = np.concatenate([client.predict_bytes([scan]) for scan in data])
    for answer in (
        by_pixels,
        client.predict_bytes(data),
        client.predict_arrays(images),
        client.predict_files(paths),
        alone,
    ):
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)


def test_no_scans_have_no_probabilities(client: Client) -> None:
    assert client.predict_bytes([]).shape == (0,)
    assert client.predict_arrays(np.zeros((0, 224, 224, 3))).shape == (0,)


def test_a_version_or_a_label_can_be_asked(server: Server, scans: dict[str, bytes]) -> None:
    kinds = ((RestClient, server.url), (GrpcClient, server.grpc))
    for kind, where in kinds:
        for which in ({"version": 1}, {"label": "stable"}):
            with kind(where, **which) as client:
                assert client.predict_bytes([scans["gray.png"]]).shape == (1,)
        for which, code in (({"version": 9}, Code.NOT_FOUND), ({"label": "nobody"}, Code.INVALID_ARGUMENT)):
            with kind(where, **which) as client, pytest.raises(ClientError) as caught:
                client.predict_bytes([scans["gray.png"]])
            assert caught.value.code is code
        with pytest.raises(UsageError, match="not both"):
            kind(where, version=1, label="stable")


def test_errors_are_one_clear_line(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="not a PNG or JPEG image") as caught:
        client.predict_bytes([b"no scan"])
    assert "\n" not in str(caught.value)
    assert caught.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(UserError, match=r"shape \(224, 224, 3\) is no batch"):
        client.predict_arrays(np.zeros((224, 224, 3)))
    with pytest.raises(UserError, match=r"missing\.png: cannot be read: No such file"):
        client.predict_files([tmp_path / "missing.png"])
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(UserError, match=r"large\.png: larger than"):
        client.predict_files([tmp_path / "large.png"])


def test_a_server_that_comes_later_is_waited_for(models: Path, scans: dict[str, bytes]) -> None:
    rest, grpc_port = free_ports(2)
    answers: dict[str, object] = {}

    def ask(name: str, client: Client) -> None:
        with client:
            try:
                answers[name] = client.predict_bytes([scans["gray.png"]]).shape
            except ClientError as error:
                answers[name] = error

    clients: dict[str, Client] = {
        "rest": RestClient(f"http://127.0.0.1:{rest}", timeout=90),
        "grpc": GrpcClient(f"127.0.0.1:{grpc_port}", timeout=90),
    }
    threads = [threading.Thread(target=ask, args=item) for item in clients.items()]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    with Server(models, "--rest-port", str(rest), "--grpc-port", str(grpc_port)):
        for thread in threads:
            thread.join()
    assert answers == {"rest": (1,), "grpc": (1,)}


def test_a_server_that_does_not_come_is_said(scans: dict[str, bytes]) -> None:
    (port,) = free_ports(1)
    for client in (RestClient(f"http://127.0.0.1:{port}", timeout=0.5), GrpcClient(f"127.0.0.1:{port}", timeout=0.5)):
        begun = time.monotonic()
        with client, pytest.raises(ClientError) as caught:
            client.predict_bytes([scans["gray.png"]])
        assert caught.value.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
        assert time.monotonic() - begun < 5


@contextmanager
def scripted(*statuses: int) -> Iterator[tuple[str, list[int]]]:
    """A server that answers with these statuses in turn (0: not at all), and what it has answered so far."""
    left, given = list(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            given.append(left.pop(0))
            if not given[-1]:
                time.sleep(3)
                return
            body = json.dumps({"predictions": [0.25]} if given[-1] == 200 else {"error": "as scripted"}).encode()
            self.send_response(given[-1])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", given
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_unavailable_is_asked_again() -> None:
    with scripted(503, 503, 200) as (url, given), RestClient(url) as client:
        assert client.predict_bytes([b"x"]) == [0.25]
    assert given == [503, 503, 200]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.INVALID_ARGUMENT),
        (404, Code.NOT_FOUND),
        (429, Code.RESOURCE_EXHAUSTED),
        (413, Code.UNKNOWN),
        (500, Code.UNKNOWN),
        (504, Code.DEADLINE_EXCEEDED),
    ],
)
def test_nothing_else_is_asked_again(status: int, code: Code) -> None:
    with scripted(status) as (url, given), RestClient(url) as client, pytest.raises(ClientError) as caught:
        client.predict_bytes([b"x"])
    assert caught.value.code is code
    assert f"{status}" in str(caught.value)
    assert "as scripted" in str(caught.value)
    assert given == [status]


def test_the_deadline_counts_for_the_whole_call() -> None:
    with scripted(503, 0) as (url, given), RestClient(url, timeout=1) as client:
        begun = time.monotonic()
        with pytest.raises(ClientError) as caught:
            client.predict_bytes([b"x"])
        took = time.monotonic() - begun
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert given == [503, 0]
    assert took < 2.5


def test_an_answer_of_another_length_is_an_error() -> None:
    with scripted(200) as (url, _), RestClient(url) as client, pytest.raises(ClientError, match="for 2 scans"):
        client.predict_bytes([b"x", b"y"])


def test_a_server_that_does_not_say_what_it_serves_is_no_error() -> None:
    """TF Serving, or a proxy before it, knows nothing of `/versions.json`."""
    for status in (404, 405, 403):
        with scripted(status) as (url, _), RestClient(url) as client:
            assert client.about() is None


def test_rest_needs_no_tensorflow(server: Server, scans: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(scans["rgb.png"])
    script = f"""
import sys
sys.modules["tensorflow"] = None
from serving.client import RestClient
with RestClient({server.url!r}) as client:
    print(client.predict_files([{str(tmp_path / "scan.png")!r}])[0])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 1


# --- python -m serving predict


@pytest.fixture(scope="module")
def files(scans: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Scans and one file that is none, as paths by name."""
    folder = tmp_path_factory.mktemp("files")
    for name, data in {**scans, "notes.txt": b"no scan"}.items():
        (folder / name).write_bytes(data)
    return {path.name: str(path) for path in folder.iterdir()}


def test_predict_prints_a_line_for_each_image(server: Server, models: Path, files: dict[str, str]) -> None:
    paths = [files["gray.png"], files["rgb.jpeg"]]
    done = run_serving("predict", *paths, "--url", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == paths
    assert all(label == ("CT_COVID" if float(p) >= 0.5 else "CT_NonCOVID") for _, p, label in lines)

    as_json = run_serving("predict", *paths, "--url", server.url, "--json", "--label", "stable")
    parsed = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [(each["path"], f"{each['probability']:.4f}", each["label"]) for each in parsed] == [*map(tuple, lines)]

    over_grpc = run_serving("predict", *paths, "--grpc", server.grpc, "--about", str(models / NAME / "1"))
    assert (over_grpc.returncode, over_grpc.stdout) == (0, done.stdout)
    without_names = run_serving("predict", *paths, "--grpc", server.grpc, "--version", "1")
    assert [line.split("  ")[1:] for line in without_names.stdout.splitlines()] == [[p, "-"] for _, p, _ in lines]


def test_predict_names_the_image_that_is_none_and_prints_the_others(server: Server, files: dict[str, str]) -> None:
    done = run_serving(
        "predict", files["gray.png"], "missing.png", files["notes.txt"], files["rgb.png"], "--url", server.url
    )
    assert done.returncode == 1
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == [files["gray.png"], files["rgb.png"]]
    first, second = done.stderr.splitlines()
    assert first == "missing.png: cannot be read: No such file or directory"
    assert second.startswith(f"{files['notes.txt']}: refused by {server.url}: 400")
    assert "not a PNG or JPEG image" in second


def test_predict_says_in_a_line_what_fails(server: Server, files: dict[str, str]) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    cases = {
        ("--url", server.url, "--version", "9"): "NOT_FOUND|404 Not Found: Servable not found",
        ("--url", server.url, "--name", "other"): "404 Not Found: Servable not found",
        ("--url", nobody, "--timeout", "0.3"): f"{nobody}: no server answers there",
    }
    for arguments, message in cases.items():
        done = run_serving("predict", files["gray.png"], *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        with pytest.raises(UserError, match=message):
            raise UserError(done.stderr)
        assert len(done.stderr.splitlines()) == 1
    assert run_serving("predict", files["gray.png"], "--url", "localhost:8501").returncode == 2
    assert run_serving("predict").returncode == 2
