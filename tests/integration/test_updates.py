"""Versions change while a server answers: nothing is lost, and no batch mixes two versions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from serving.client import Client, ClientError, GrpcClient, RestClient
from tests.serving_support import NAME, Server, place, recorded, write_labels


@pytest.fixture
def running(tmp_path: Path, exported: list[Path]) -> Iterator[tuple[Server, Path]]:
    """A server of a folder with version 1, which is stable."""
    place(exported[0], tmp_path, 1)
    write_labels(tmp_path, stable=1)
    with Server(tmp_path) as server:
        yield server, tmp_path


def eventually(what: Callable[[], object], expected: object, seconds: float = 30) -> None:
    """Waits until `what` gives what is expected."""
    deadline = time.monotonic() + seconds
    while (found := what()) != expected:
        assert time.monotonic() < deadline, f"still {found!r} instead of {expected!r}"
        time.sleep(0.02)


def labels_in_force(server: Server) -> dict[str, int]:
    versions = json.loads(urllib3.request("GET", f"{server.url}/versions.json").data)["versions"]
    return {label: each["version"] for each in versions for label in each["labels"]}


def available(client: RestClient) -> list[int]:
    return [number for number, state in client.status().items() if state == "AVAILABLE"]


class Load:
    """Clients that ask without a pause for batches of one scan: two probabilities in a batch would be two versions'."""

    def __init__(self, server: Server, scan: bytes, expected: list[float]) -> None:
        self.failures: list[str] = []
        self.batches = 0
        self.seen: set[int] = set()
        self._scan = scan
        self._expected = expected
        self._stop = threading.Event()
        clients: list[Client] = [
            RestClient(server.url),
            GrpcClient(server.grpc),
            RestClient(server.url, label="stable"),
            GrpcClient(server.grpc, label="stable"),
        ]
        self._threads = [threading.Thread(target=self._ask, args=(client,)) for client in clients]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: Client) -> None:
        with client:
            while not self._stop.is_set():
                try:
                    batch = client.predict_bytes([self._scan] * 4).tolist()
                except ClientError as error:
                    self.failures.append(str(error))
                    continue
                versions = {i for i, p in enumerate(self._expected) if all(abs(p - each) < 1e-5 for each in batch)}
                self.batches += 1
                self.seen |= versions
                if not versions:
                    self.failures.append(f"no single version answers {batch}")

    def stop(self) -> None:
        """Ends it, after the answers that are under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_versions_published_promoted_and_rolled_back_under_load(
    running: tuple[Server, Path], exported: list[Path], scans: dict[str, bytes], repeat: Callable[[str, int], int]
) -> None:
    server, root = running
    rounds = repeat("SERVING_UPDATES", 6)
    expected = [recorded(version, "gray.png") for version in exported]
    assert min(abs(a - b) for i, a in enumerate(expected) for b in expected[:i]) > 1e-3
    load = Load(server, scans["gray.png"], expected)
    sizes = []
    with RestClient(server.url) as client:
        for number in range(2, rounds + 2):
            place(exported[number % 3], root, number)
            eventually(lambda: max(available(client)), number)
            for promoted in (number, number - 1):  # and back
                write_labels(root, stable=promoted)
                eventually(lambda: labels_in_force(server), {"stable": promoted})
            sizes.append(server.memory())
        load.stop()
        assert load.failures == []
        assert load.seen == {0, 1, 2}
        assert client.status()[rounds + 1] == "AVAILABLE"
    print(f"\n{rounds} updates under load: {load.batches} batches, none lost; memory in MB:", [s >> 20 for s in sizes])
    if rounds >= 20:  # fewer say nothing about growth
        assert sizes[-1] < 1.2 * sizes[rounds // 2]
    assert (root / NAME / "1").is_dir()
