"""A folder follows a store of versions, which is a folder or a real S3. The warm-up check is played by a function here;
`test_follow.py` runs the real one in real processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from job.errors import UserError
from job.storage import LocalStorage, open_storage
from serving.check import Checker, CheckNotDone
from serving.registry import write_labels
from tests.follower import FakeServer, Follower, add, files


@pytest.fixture
def follow(source: str, tmp_path: Path) -> Callable[..., Follower]:
    return lambda **plan: Follower(source, tmp_path / "models" / "covid_ct", **plan)


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


def test_a_check_that_was_killed_is_no_verdict(source: str, follow: Callable[..., Follower]):
    add(source, 1)
    follower = follow()
    original = follower.puller._check

    def killed(_: Path) -> None:
        raise CheckNotDone("killed")

    follower.puller._check = killed
    with pytest.raises(CheckNotDone):
        follower.puller.round()
    assert follower.here() == []
    follower.puller._check = original
    assert follower.round() == [1]


def test_what_the_real_check_says_of_no_version_is_one_line(tmp_path: Path):
    LocalStorage(tmp_path).write_bundle("1", files(1))
    with pytest.raises(UserError, match=f"^{tmp_path / '1'}") as caught:
        Checker()(tmp_path / "1")
    assert not isinstance(caught.value, CheckNotDone)
    assert "\n" not in str(caught.value)


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


def config_of(path: Path) -> tuple[set[int], dict[str, int]]:
    """Versions and labels, as TF Serving's own message reads the file."""
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("covid_ct", str(path.parent / "covid_ct"))
    return set(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_a_label_moves_only_when_the_server_has_loaded_its_version(
    source: str, follow: Callable[..., Follower], tmp_path: Path, fake: FakeServer
):
    config = tmp_path / "models" / "models.config"
    add(source, 1)
    write_labels(open_storage(source), {"stable": 1})
    # The init container: no server yet, so no labels either, or TF Serving would not start.
    follow(config=config).round()
    assert config_of(config) == ({1}, {})
    follower = follow(config=config, server=fake.url)
    fake.known = False
    follower.round()
    assert config_of(config) == ({1}, {})
    fake.known, fake.loaded = True, {1}
    follower.round()
    assert config_of(config) == ({1}, {"stable": 1})
    add(source, 2, 3)
    write_labels(open_storage(source), {"stable": 2})
    follower.round()
    assert config_of(config) == ({1, 2, 3}, {"stable": 1}), "the old one answers until the new one does"
    fake.loaded = {1, 2, 3}
    follower.round()
    assert config_of(config) == ({2, 3}, {"stable": 2})
    # Rolled back: loaded beside the others again before the label moves.
    fake.loaded = {2, 3}
    write_labels(open_storage(source), {"stable": 1})
    follower.round()
    assert config_of(config) == ({1, 2, 3}, {"stable": 2})
    fake.loaded = {1, 2, 3}
    follower.round()
    assert config_of(config) == ({1, 3}, {"stable": 1})


def test_a_restarted_sidecar_does_not_forget_the_labels(
    source: str, follow: Callable[..., Follower], tmp_path: Path, fake: FakeServer
):
    config = tmp_path / "models" / "models.config"
    add(source, 1, 2)
    write_labels(open_storage(source), {"stable": 1})
    fake.loaded = {1}
    follow(config=config, server=fake.url).round()
    write_labels(open_storage(source), {"stable": 2})
    fake.loaded = set()  # the server is being restarted too
    follow(config=config, server=fake.url).round()
    assert config_of(config) == ({1, 2}, {"stable": 1})


def test_what_is_served_is_not_removed(source: str, follow: Callable[..., Follower], fake: FakeServer):
    add(source, 1)
    follower = follow(keep=1, server=fake.url)
    follower.round()
    fake.loaded = {1}
    add(source, 2)
    assert follower.round() == [1, 2], "still served"
    fake.loaded = {2}
    assert follower.round() == [2]
    add(source, 3)
    away = Follower(source, follower.folder, keep=1, server="http://127.0.0.1:9")
    assert away.round() == [2, 3], "nobody knows what is served"
