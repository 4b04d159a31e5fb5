"""Versions on their way to a server: between folders and a real S3 store, in any mix. The warm-up check is played by
a function here; `test_follow.py` runs the real one in real processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from job.errors import UserError
from job.storage import MANIFEST, LocalStorage, open_storage
from serving.cli import main
from serving.pull import Plan, Puller
from serving.registry import publish, read_labels, versions, write_labels


def files(number: int) -> dict[str, bytes | Path]:
    return {"saved_model.pb": b"graph %d" % number, "variables/variables.data": bytes([number]) * 5000}


@pytest.fixture(params=["folder", "s3"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where versions are published to and pulled from."""
    return str(tmp_path / "source") if request.param == "folder" else request.getfixturevalue("s3_root")


class Follower:
    """A folder that follows a source; what it says is kept, and what its check should refuse is chosen."""

    def __init__(self, source: str, folder: Path, **plan: Any) -> None:
        self.said: list[str] = []
        self.bad: set[str] = set()
        self.checked: list[str] = []
        self.folder = folder
        self.plan = Plan(source, folder, **plan)
        self.puller = Puller(self.plan, self.check, self.said.append)

    def check(self, folder: Path) -> None:
        """Stands in for the warm-up check."""
        assert folder.name.startswith("."), "checked before any server could see it"
        graph = (folder / "saved_model.pb").read_text()
        self.checked.append(graph)
        if graph in self.bad:
            raise UserError("answers with other probabilities")

    def round(self) -> list[int]:
        """One round; the versions that a server sees afterwards."""
        self.puller.round()
        return self.here()

    def here(self) -> list[int]:
        """The versions that a server sees."""
        return sorted(int(each.name) for each in self.folder.iterdir() if each.name.isdecimal())

    def labels(self) -> dict[str, int]:
        """The labels that the local server reads."""
        return read_labels(LocalStorage(self.folder))


@pytest.fixture
def follow(source: str, tmp_path: Path) -> Callable[..., Follower]:
    return lambda **plan: Follower(source, tmp_path / "models" / "covid_ct", **plan)


def add(source: str, *numbers: int) -> None:
    for number in numbers:
        assert open_storage(source).write_bundle(str(number), files(number))


# publish
def test_it_keeps_its_number_where_it_can(source: str, tmp_path: Path):
    exported = LocalStorage(tmp_path / "models")
    exported.write_bundle("covid_ct/3", files(3))
    assert publish(f"{exported.url}/covid_ct/3", source) == (3, True)
    assert open_storage(source).read_bundle("3") == files(3)


def test_twice_is_once(source: str, tmp_path: Path):
    LocalStorage(tmp_path / "m").write_bundle("3", files(3))
    assert publish(f"{tmp_path}/m/3", source) == (3, True)
    assert publish(f"{tmp_path}/m/3", source) == (3, False)
    assert versions(open_storage(source)) == [3]


def test_another_version_of_that_number_gets_the_next_one(source: str, tmp_path: Path):
    add(source, 3, 7)
    LocalStorage(tmp_path / "m").write_bundle("3", files(9))
    assert publish(f"{tmp_path}/m/3/", source) == (8, True)
    assert open_storage(source).read_bundle("3") == files(3)


def test_racing_publishers_all_get_a_version(source: str, tmp_path: Path):
    for each in range(5):
        LocalStorage(tmp_path / f"m{each}").write_bundle("1", files(each))
    with ThreadPoolExecutor(5) as pool:
        given = list(pool.map(lambda each: publish(f"{tmp_path}/m{each}/1", source), range(5)))
    assert sorted(number for number, _ in given) == [1, 2, 3, 4, 5]
    for each, (number, _) in enumerate(given):
        assert open_storage(source).read_bundle(str(number)) == files(each)


def test_from_s3_to_a_folder(s3_root: str, tmp_path: Path):
    add(f"{s3_root}/models/covid_ct", 4)
    assert publish(f"{s3_root}/models/covid_ct/4", str(tmp_path / "out")) == (4, True)
    assert (tmp_path / "out/4/saved_model.pb").read_bytes() == b"graph 4"


@pytest.mark.parametrize("what", ["missing", "half-written", "damaged", "no model"])
def test_what_is_no_version_is_refused(source: str, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "m" / "3"
    if what != "missing":
        LocalStorage(tmp_path / "m").write_bundle("3", {"x": b"1"} if what == "no model" else files(3))
    if what == "half-written":
        (folder / MANIFEST).unlink()
    if what == "damaged":
        (folder / "variables/variables.data").write_bytes(b"short")
    assert main(["publish", str(folder), source]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(folder) in error
    assert versions(open_storage(source)) == []


# pull
def test_the_newest_are_pulled_checked_and_then_visible(source: str, follow: Callable[..., Follower]):
    add(source, 1, 2, 3)
    follower = follow()
    assert follower.round() == [2, 3]
    assert follower.checked == ["graph 3", "graph 2"]
    assert LocalStorage(follower.folder).read_bundle("3") == files(3)
    assert follower.round() == [2, 3]
    assert len(follower.checked) == 2, "nothing is pulled twice"


def test_an_empty_source_is_said(source: str, follow: Callable[..., Follower]):
    open_storage(source).write(".keep", b"")
    with pytest.raises(UserError, match="holds no version that can be served"):
        follow().round()


def test_a_version_that_fails_its_check_is_never_visible(source: str, follow: Callable[..., Follower]):
    add(source, 1, 2, 3)
    follower = follow()
    follower.bad = {"graph 3"}
    assert follower.round() == [1, 2]
    assert any("version 3 is refused: answers with other" in line for line in follower.said)
    before = len(follower.said)
    assert follower.round() == [1, 2]
    assert follower.checked.count("graph 3") == 1
    assert follower.said[before:] == [], "it is said once"
    assert [each.name for each in follower.folder.iterdir() if each.name.startswith(".")] == []


def test_a_corrupt_version_is_refused_and_the_others_come(source: str, follow: Callable[..., Follower]):
    add(source, 1, 2)
    storage = open_storage(source)
    broken = next(e.path for e in storage.entries("2") if e.path.endswith("variables.data"))
    storage.write(broken, bytes(5000))
    follower = follow()
    assert follower.round() == [1]
    assert any("version 2 is refused" in line and "damaged" in line for line in follower.said)


def test_labelled_versions_come_too_and_labels_follow_them(source: str, follow: Callable[..., Follower]):
    add(source, 1, 2, 3, 4)
    write_labels(open_storage(source), {"stable": 1, "canary": 4})
    follower = follow()
    assert follower.round() == [1, 3, 4]
    assert follower.labels() == {"stable": 1, "canary": 4}


def test_a_label_waits_for_a_version_that_is_not_good(source: str, follow: Callable[..., Follower]):
    add(source, 1, 2)
    write_labels(open_storage(source), {"stable": 1})
    follower = follow()
    follower.round()
    add(source, 3)
    follower.bad = {"graph 3"}
    write_labels(open_storage(source), {"stable": 3, "canary": 9})
    follower.round()
    assert follower.labels() == {"stable": 1}
    assert any("canary names version 9" in line for line in follower.said)


def test_old_versions_go_and_labelled_ones_stay(source: str, follow: Callable[..., Follower]):
    follower = follow(keep=2)
    for number in range(1, 6):
        add(source, number)
        if number == 2:
            write_labels(open_storage(source), {"stable": 2})
        here = follower.round()
    assert here == [2, 4, 5]


def test_a_version_deleted_at_the_source_stays_while_it_is_new_here(source: str, follow: Callable[..., Follower]):
    add(source, 1, 2)
    follower = follow()
    follower.round()
    open_storage(source).delete("2")
    assert follower.round() == [1, 2]


def test_a_source_that_is_away_changes_nothing(source: str, follow: Callable[..., Follower]):
    add(source, 1)
    follower = follow()
    follower.round()

    def away(*_: Any) -> Any:
        raise UserError("the store is away")

    follower.puller._source.bundles = away  # type: ignore[method-assign]
    with pytest.raises(UserError, match="the store is away"):
        follower.puller.round()
    assert follower.here() == [1]


def test_a_full_disk_keeps_what_is_there_and_gives_back_what_was_begun(
    source: str, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
):
    add(source, 1)
    follower = follow()
    follower.round()
    add(source, 2)
    write_labels(open_storage(source), {"stable": 1})
    with monkeypatch.context() as patch:
        full = _disk_full_after(patch, 1)
        with pytest.raises(UserError, match="No space left on device"):
            follower.puller.round()
        assert full
    assert follower.here() == [1]
    assert [p.name for p in follower.folder.iterdir() if p.name.startswith(".")] == []
    assert follower.labels() == {"stable": 1}, "what needs no room is done all the same"
    assert follower.round() == [1, 2]


def _disk_full_after(patch: pytest.MonkeyPatch, count: int) -> list[bool]:
    """The disk is full for the (count + 1)-th file that is written."""
    import errno

    import job.local

    original, written = job.local._write_synced, []

    def write(path: Path, content: bytes | Path) -> Any:
        written.append(True)
        if len(written) > count and ".incomplete-" in str(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return original(path, content)

    patch.setattr("job.local._write_synced", write)
    return written  # type: ignore[return-value]


class FakeServer:
    """Says which versions are loaded, as TF Serving's REST API does; no model is needed for that."""

    def __init__(self) -> None:
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        self.loaded: set[int] = set()
        self.known = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                states = [
                    {"version": str(number), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
                    for number in outer.loaded
                ]
                content = {"model_version_status": states} if outer.known else {"error": "Servable not found"}
                body = json.dumps(content).encode()
                self.send_response(200 if outer.known else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops it."""
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Any:
    running = FakeServer()
    yield running
    running.close()


def config_of(path: Path) -> tuple[set[int], dict[str, int]]:
    """Versions and labels, as TF Serving's own message reads the file."""
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("covid_ct", str(path.parent / "covid_ct"))
    return set(model.model_version_policy.specific.versions), dict(model.version_labels)


# TF Serving's model config
def test_a_label_moves_only_when_the_server_has_loaded_its_version(
    source: str, follow: Callable[..., Follower], tmp_path: Path, server: FakeServer
):
    config = tmp_path / "models" / "models.config"
    add(source, 1)
    write_labels(open_storage(source), {"stable": 1})
    # The init container: no server yet, so no labels either, or TF Serving would not start.
    follow(config=config).round()
    assert config_of(config) == ({1}, {})
    follower = follow(config=config, server=server.url)
    server.known = False
    follower.round()
    assert config_of(config) == ({1}, {})
    server.known, server.loaded = True, {1}
    follower.round()
    assert config_of(config) == ({1}, {"stable": 1})
    add(source, 2, 3)
    write_labels(open_storage(source), {"stable": 2})
    follower.round()
    assert config_of(config) == ({1, 2, 3}, {"stable": 1}), "the old one answers until the new one does"
    server.loaded = {1, 2, 3}
    follower.round()
    assert config_of(config) == ({2, 3}, {"stable": 2})
    # Rolled back: loaded beside the others again before the label moves.
    server.loaded = {2, 3}
    write_labels(open_storage(source), {"stable": 1})
    follower.round()
    assert config_of(config) == ({1, 2, 3}, {"stable": 2})
    server.loaded = {1, 2, 3}
    follower.round()
    assert config_of(config) == ({1, 3}, {"stable": 1})


def test_a_restarted_sidecar_does_not_forget_the_labels(
    source: str, follow: Callable[..., Follower], tmp_path: Path, server: FakeServer
):
    config = tmp_path / "models" / "models.config"
    add(source, 1, 2)
    write_labels(open_storage(source), {"stable": 1})
    server.loaded = {1}
    follow(config=config, server=server.url).round()
    write_labels(open_storage(source), {"stable": 2})
    server.loaded = set()  # the server is being restarted too
    follow(config=config, server=server.url).round()
    assert config_of(config) == ({1, 2}, {"stable": 1})


def test_what_is_served_is_not_removed(source: str, follow: Callable[..., Follower], server: FakeServer):
    add(source, 1)
    follower = follow(keep=1, server=server.url)
    follower.round()
    server.loaded = {1}
    add(source, 2)
    assert follower.round() == [1, 2], "still served"
    server.loaded = {2}
    assert follower.round() == [2]
    add(source, 3)
    away = Follower(source, follower.folder, keep=1, server="http://127.0.0.1:9")
    assert away.round() == [2, 3], "nobody knows what is served"


# versions, promote, rollback
def test_versions_lists_sizes_and_labels(source: str, capsys: pytest.CaptureFixture[str]):
    add(source, 2, 10)
    write_labels(open_storage(source), {"stable": 2, "blue": 2, "canary": 10})
    open_storage(source).write("11/saved_model.pb", b"no manifest, no version")
    assert main(["versions", source]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["version", "bytes", "labels"],
        ["2", "5,007", "blue", "stable"],
        ["10", "5,008", "canary"],
    ]


def test_promote_and_rollback_move_a_label(source: str, capsys: pytest.CaptureFixture[str]):
    add(source, 1, 2, 4)
    storage = open_storage(source)
    for words, expected in (
        ("promote {} 2 --unchecked", {"stable": 2}),
        ("promote {} 4 --unchecked --label canary", {"stable": 2, "canary": 4}),
        ("promote {} 4 --unchecked", {"stable": 4, "canary": 4}),
        ("rollback {}", {"stable": 2, "canary": 4}),
        ("rollback {}", {"stable": 1, "canary": 4}),
    ):
        assert main(words.format(source).split()) == 0
        assert read_labels(storage) == expected
    assert capsys.readouterr().out.splitlines()[2:] == [
        "stable = 4, before 2",
        "stable = 2, before 4",
        "stable = 1, before 2",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("promote {} 9", "there is no complete version 9; there are: 1, 2"),
        ("promote {} 2 --unchecked --label a/b", "no label"),
        ("rollback {}", "is version 1, and there is none before it"),
        ("rollback {} --label canary", "no version is labelled canary"),
        ("promote {} 2", "version 2"),  # no model: its check fails
        ("promote {} 2 --unchecked --server http://127.0.0.1:9", "no server answers"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(source: str, capsys: pytest.CaptureFixture[str], words: str, said: str):
    add(source, 1, 2)
    write_labels(open_storage(source), {"stable": 1})
    assert main(words.format(source).split()) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error or "2: " in error
    assert read_labels(open_storage(source)) == {"stable": 1}


def test_a_server_must_have_loaded_what_it_is_asked_about(
    source: str, capsys: pytest.CaptureFixture[str], server: FakeServer
):
    add(source, 1, 2)
    server.loaded = {1}
    assert main(["promote", source, "2", "--unchecked", "--server", server.url]) == 1
    assert "is not loaded there (loaded: 1)" in capsys.readouterr().err
    assert main(["promote", source, "1", "--unchecked", "--server", server.url]) == 0


def test_broken_labels_are_an_error_and_stay(source: str, capsys: pytest.CaptureFixture[str]):
    add(source, 1)
    open_storage(source).write("labels.json", b'{"stable": "one"}')
    assert main(["promote", source, "1", "--unchecked"]) == 1
    assert "labels.json: not an object" in capsys.readouterr().err
    assert open_storage(source).read("labels.json") == b'{"stable": "one"}'


@pytest.mark.parametrize("words", ["--keep 1", "--keep 0 --server http://x", "--interval 0"])
def test_wrong_options_exit_with_2(tmp_path: Path, words: str):
    assert main(["pull", str(tmp_path), str(tmp_path / "m"), *words.split()]) == 2
