"""`pull --watch` as a process beside a server, with real models: what it shows the server, and how it ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.storage import MANIFEST, LocalStorage, open_storage
from serving.client import RestClient
from serving.registry import read_labels
from serving.version import EVALUATION_FILE
from tests.s3_proxy import Fault, Proxy
from tests.s3_server import S3Server
from tests.serving_support import NAME, ROOT, Server, environment, export, run_serving


@pytest.fixture(scope="module")
def exported(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions: two good ones with different answers, and one whose recorded answers are not its own."""
    root = tmp_path_factory.mktemp("exported")
    shutil.copytree(models / NAME / "1", root / NAME / "1")
    assert export(root, seed=7) == 2
    files = dict(LocalStorage(root / NAME).read_bundle("2"))
    evaluation = json.loads(files[EVALUATION_FILE])
    changed = json.dumps(evaluation["warmup"]).replace("0.", "0.0", 1)
    files[EVALUATION_FILE] = json.dumps({**evaluation, "warmup": json.loads(changed)}).encode()
    assert LocalStorage(root / NAME).write_bundle("3", files)
    return root / NAME


@contextmanager
def watching(source: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`pull --watch` in a process; killed at the end if it is still there."""
    command = [sys.executable, "-m", "serving", "pull", source, str(folder), "--watch", "--interval", "0.2", *options]
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = (folder.parent / f"pull-{time.monotonic_ns()}.log").open("w+")
    with log, subprocess.Popen(command, cwd=ROOT, stderr=log, text=True, env=environment()) as process:
        try:
            process.log = log.name  # type: ignore[attr-defined]
            yield process
        finally:
            process.kill()


def eventually(true: Callable[[], bool], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def test_versions_arrive_are_promoted_and_rolled_back_while_the_server_answers(
    s3_root: str, exported: Path, tmp_path: Path, scans: dict[str, bytes]
):
    source, folder = f"{s3_root}/{NAME}", tmp_path / "models" / NAME
    scan = next(iter(scans.values()))
    assert run_serving("publish", str(exported / "1"), source).stdout == f"{source}/1\n"
    first = run_serving("pull", source, str(folder))
    assert first.returncode == 0, first.stderr
    run_serving("promote", source, "1", "--unchecked")
    with Server(folder.parent) as server, watching(source, folder, "--server", server.url) as sidecar:
        log = Path(sidecar.log)  # type: ignore[attr-defined]
        client, stable = RestClient(server.url), RestClient(server.url, label="stable")
        eventually(lambda: read_labels(LocalStorage(folder)) == {"stable": 1}, "the label follows")
        server.wait_for("version 1 is available")
        run_serving("publish", str(exported / "2"), source)
        server.wait_for("version 2 is available", seconds=90)
        answers = {number: RestClient(server.url, version=number).predict_bytes([scan])[0] for number in (1, 2)}
        assert answers[1] != answers[2]
        assert stable.predict_bytes([scan])[0] == answers[1]

        run_serving("publish", str(exported / "3"), source)
        eventually(lambda: "version 3 is refused" in log.read_text(), "the bad version is refused")
        refused = run_serving("promote", source, "3")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.count("\n") == 1
        assert 3 not in client.status()

        promoted = run_serving("promote", source, "2", "--server", server.url)
        assert promoted.stdout == "stable = 2, before 1\n", promoted.stderr
        eventually(lambda: stable.predict_bytes([scan])[0] == answers[2], "stable answers as version 2")
        assert run_serving("rollback", source).stdout == "stable = 1, before 2\n"
        eventually(lambda: stable.predict_bytes([scan])[0] == answers[1], "stable answers as version 1")
        assert client.predict_bytes([scan])[0] == answers[2], "without a label, the newest answers"

        sidecar.terminate()
        began = time.monotonic()
        assert sidecar.wait(10) == 0
        assert time.monotonic() - began < 3
        assert stable.predict_bytes([scan])[0] == answers[1]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_pull_that_is_killed_half_way_is_taken_up(
    s3: S3Server, s3_root: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
):
    source, folder = f"{s3_root}/{NAME}", tmp_path / "models" / NAME
    files = LocalStorage(exported).read_bundle("1")
    assert open_storage(source).write_bundle("1", files)
    slow = "/variables/variables.data-00000-of-00001"
    with Proxy(s3.endpoint, lambda request: Fault(hang=True) if request.path.endswith(slow) else None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with watching(source, folder) as process:
            eventually(lambda: proxy.count("GET", slow) > 0, "the slow file is asked for")
            eventually(lambda: len(_kept(folder)) >= 2, "some files are there")
            began = time.monotonic()
            process.send_signal(how)
            code = process.wait(10)
        assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)
        assert time.monotonic() - began < 3, "it did not wait for the store"
        assert LocalStorage(folder).bundles() == [], "no server sees anything of it"
        kept = _kept(folder)
        proxy.fault = lambda _: None
        proxy.requests.clear()
        again = run_serving("pull", source, str(folder))
        assert again.returncode == 0, again.stderr
        assert LocalStorage(folder).read_bundle("1") == files
        fetched = {
            each.path.partition("/.blobs-")[2].partition("/")[2] for each in proxy.requests if each.method == "GET"
        }
        assert not fetched & kept, "what was whole is not fetched again"


def _kept(folder: Path) -> set[str]:
    """The files of a half-done download, by path within the version."""
    kept = set()
    for top in folder.glob(".incomplete-*"):
        kept |= {
            path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file() and path.name != MANIFEST
        }
    return kept
