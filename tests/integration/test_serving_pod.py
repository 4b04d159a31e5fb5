"""The serving Deployment of the s3 overlay as processes: its init container, its sidecar, the image's `serve` with the
project's server behind TF Serving's command line, its probes and its drain; through load, update, a failed update and
the end of the pod."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from job.storage import LocalStorage
from serving.registry import publish
from tests.contract.manifests import ROOT, Object, find, pods, render
from tests.ports import free_ports
from tests.s3_server import BUCKET, SECRET, S3Server
from tests.serving_support import NAME, export

SERVE = ROOT / "k8s" / "serve-image"


class Pod:
    """The pod's containers as processes: mounts below a folder of the test's, ports of the test's, else as written."""

    def __init__(self, folder: Path, s3: S3Server) -> None:
        objects = render("s3")
        (found,) = [pod for pod in pods(objects) if pod.owner == "Deployment covid-ct-serving"]
        self.containers = {container["name"]: container for container in found.containers}
        self.ports = dict(zip(("8500", "8501"), map(str, free_ports(2)), strict=True))
        self.models = folder / "models"
        self.source = f"s3://{BUCKET}/pod/models/{NAME}"
        self.log = folder / "log"
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **find(objects, "ConfigMap", "covid-ct-environment")["data"],
            **s3.environment(),
            "MODEL_SOURCE": self.source,
            "PATH": os.pathsep.join([str(bin_folder), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        server = bin_folder / "tensorflow_model_server"
        server.write_text(self._stand_in())
        server.chmod(0o755)

    def _stand_in(self) -> str:
        """Takes TF Serving's flags, insists on the config files, and becomes the project's server."""
        command = [sys.executable, "-m", "serving", "run", "--built-in", "--models", str(self.models), "--name", NAME]
        return f"""#!/bin/bash
echo "$@" >&2
for argument in "$@"; do case $argument in
    --port=*) port=${{argument#*=}} ;;
    --rest_api_port=*) rest=${{argument#*=}} ;;
    --model_config_file=*) test -r "${{argument#*=}}" || exit 1 ;;
esac; done
[ "$port $rest" = "8500 8501" ] || exit 1
exec {shlex.join(command)} --grpc-port {self.ports["8500"]} --rest-port {self.ports["8501"]}
"""

    def words(self, words: list[str]) -> list[str]:
        """A command as the container would run it: variables replaced by Kubernetes, paths and ports by the test."""
        known = self.environment
        replaced = [re.sub(r"\$\((\w+)\)", lambda match: known[match[1]], word) for word in words]
        replaced = [self._place(word) for word in replaced]
        return [re.sub(r"\b850[01]\b", lambda match: self.ports[match[0]], word) for word in replaced]

    def _place(self, word: str) -> str:
        word = word.replace("/usr/local/bin", str(SERVE))
        return word.replace("/models", str(self.models), 1) if word.startswith("/models") else word

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """A container's process, with its output in the log."""
        container = self.containers[name]
        # The serving image's entrypoint is `serve`; the training image has none but its init.
        words = container.get("args") or [str(SERVE / "serve")]
        own = {v["name"]: self._place(v.get("value", "2")) for v in container.get("env", [])}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.words(words), env={**self.environment, **own}, cwd=self.log.parent, stdout=log, stderr=log
            )

    def probe(self, kind: str) -> bool:
        """What the kubelet would find."""
        check: Object = self.containers["tf-serving"][kind]
        if "grpc" in check:
            try:
                with grpc.insecure_channel(f"127.0.0.1:{self.ports[str(check['grpc']['port'])]}") as channel:
                    stub = health_pb2_grpc.HealthStub(channel)
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=check["timeoutSeconds"])
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
            except grpc.RpcError:
                return False
        command = self.words(check["exec"]["command"])
        try:
            done = subprocess.run(command, capture_output=True, timeout=check["timeoutSeconds"], check=False)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def passes(self, kind: str) -> None:
        """Fails where the kubelet would give the container up: after so many failures in a row."""
        check = self.containers["tf-serving"][kind]
        self.wait(kind, check["periodSeconds"] * check["failureThreshold"])

    def wait(self, kind: str, seconds: float) -> None:
        """Until a probe succeeds."""
        deadline = time.monotonic() + seconds
        while not self.probe(kind):
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.2)


class Traffic(threading.Thread):
    """A client that asks without pause, a connection each time, and keeps what went wrong."""

    def __init__(self, url: str, body: bytes) -> None:
        super().__init__(daemon=True)
        self.url, self.body = url, body
        self.failures: list[str] = []
        self.answers = 0
        self._end = threading.Event()

    def run(self) -> None:
        """Asks until it is stopped."""
        while not self._end.is_set():
            request = urllib.request.Request(self.url, self.body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=20) as response:
                    response.read()
                self.answers += 1
            except OSError as error:
                self.failures.append(str(error))
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends after the request under way."""
        self._end.set()
        self.join()


@pytest.fixture
def pod(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Pod:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return Pod(tmp_path, s3)


@pytest.mark.timeout(900)
def test_a_pod_loads_updates_survives_a_bad_version_and_drains(
    pod: Pod, tmp_path: Path, scans: dict[str, bytes]
) -> None:
    made = tmp_path / "made"
    processes = []
    try:
        # Nothing published yet: the init container fails, and the kubelet would start it again.
        assert pod.start("pull").wait(300) == 1
        assert "publish one" in pod.log.read_text()

        publish(str(made / NAME / str(export(made, seed=1))), pod.source)
        assert pod.start("pull").wait(300) == 0, pod.log.read_text()
        assert not pod.probe("startupProbe")
        assert not pod.probe("livenessProbe")

        follow, server = pod.start("follow"), pod.start("tf-serving")
        processes += [follow, server]
        pod.wait("startupProbe", 200)
        pod.passes("readinessProbe")
        pod.passes("livenessProbe")

        url = f"http://127.0.0.1:{pod.ports['8501']}/v1/models/{NAME}"
        traffic = Traffic(f"{url}:predict", request_for(scans["gray.png"]))
        traffic.start()
        publish(str(made / NAME / str(export(made, seed=2))), pod.source)
        wait_for_version(url, 2)
        pod.passes("readinessProbe")

        # A version that answers other than it says of itself: never seen by the server.
        give_other_weights(made / NAME / "2", made / NAME / "3", weights_of=made / NAME / "1")
        publish(str(made / NAME / "3"), pod.source)
        deadline = time.monotonic() + 200
        while "version 3 is refused" not in pod.log.read_text():
            assert time.monotonic() < deadline, pod.log.read_text()[-3000:]
            time.sleep(0.2)
        assert not (pod.models / NAME / "3").exists()
        assert versions_at(url) == {2: "AVAILABLE"}
        pod.passes("readinessProbe")
        pod.passes("livenessProbe")

        # The end: during preStop the server answers as before; the endpoints are withdrawn and clients go elsewhere.
        drain = pod.containers["tf-serving"]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert drain > 0
        before = traffic.answers
        time.sleep(1)
        assert traffic.answers > before
        traffic.stop()
        assert traffic.failures == []
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert not pod.probe("readinessProbe")
        # A sidecar is told to end after the main containers have ended.
        follow.send_signal(signal.SIGTERM)
        assert follow.wait(10) == 0
        assert SECRET not in pod.log.read_text()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def request_for(scan: bytes) -> bytes:
    instance = {"b64": base64.b64encode(scan).decode()}
    return json.dumps({"signature_name": "predict_bytes", "instances": [instance]}).encode()


def give_other_weights(source: Path, target: Path, weights_of: Path) -> None:
    """A complete version `target` as `source`, but with the variables of another: it computes other probabilities."""
    files = dict(LocalStorage(source.parent).read_bundle(source.name))
    others = LocalStorage(weights_of.parent).read_bundle(weights_of.name)
    files |= {path: data for path, data in others.items() if path.startswith("variables/")}
    assert LocalStorage(target.parent).write_bundle(target.name, files)


def versions_at(url: str) -> dict[int, str]:
    with urllib.request.urlopen(url, timeout=10) as response:
        status = json.load(response)["model_version_status"]
    return {int(each["version"]): each["state"] for each in status if each["state"] != "END"}


def wait_for_version(url: str, number: int) -> None:
    deadline = time.monotonic() + 200
    while versions_at(url) != {number: "AVAILABLE"}:
        assert time.monotonic() < deadline, versions_at(url)
        time.sleep(0.2)
