"""What every storage does: the same tests against a folder and against a real S3 server."""

from __future__ import annotations

import json
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from job.errors import UserError
from job.storage import MANIFEST, ChangedFile, DamagedBundle, Storage, open_file, open_storage, read_many

# The real data set has such names, and worse ones are allowed.
NAMES = [
    "a%0.png",
    "a b",
    "a+b",
    "a[1](2)",
    "a.b",
    "a/b",
    "a/c/d",
    "a-b/x",
    "ä/ö ß",
    "日本.png",
    "\U0001f600",
    "%2e%2e",
    "a&b=c?d#e",
]
FILES: dict[str, bytes | Path] = {"saved_model.pb": b"graph", "variables/v.data": bytes(range(256)) * 100, "empty": b""}


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        (tmp_path / "root").mkdir()
        return open_storage(str(tmp_path / "root"))
    return open_storage(request.getfixturevalue("s3_root"))


def test_what_is_written_is_listed_with_its_size_and_read(storage: Storage):
    content = {name: name.encode() * 3 for name in NAMES}
    for name, data in content.items():
        storage.write(name, data)
    assert {entry.path: entry.size for entry in storage.entries()} == {
        name: len(data) for name, data in content.items()
    }
    for entry in storage.entries():
        assert storage.read(entry.path, entry) == content[entry.path]


def test_a_listing_stays_within_its_folder(storage: Storage):
    for name in ("a/1", "ab/1", "a.txt", "b/a/1"):
        storage.write(name, b"x")
    assert [entry.path for entry in storage.entries("a")] == ["a/1"]
    assert list(storage.entries("a/1")) == []
    assert list(storage.entries("none")) == []


def test_writing_again_replaces_and_changes_the_tag(storage: Storage):
    storage.write("f", b"old")
    (before,) = storage.entries()
    storage.write("f", b"new")
    (after,) = storage.entries()
    assert (storage.read("f"), before.tag != after.tag) == (b"new", True)
    with pytest.raises(ChangedFile, match="/f: changed since it was listed"):
        storage.read("f", before)


def test_a_file_that_went_after_the_listing_is_named(storage: Storage):
    storage.write("f", b"1")
    (entry,) = storage.entries()
    storage.delete("f")
    with pytest.raises(ChangedFile, match="/f: gone since it was listed"):
        storage.read("f", entry)


@pytest.mark.parametrize("path", ["missing", "folder", "folder/f/below"])
def test_a_missing_file_is_not_found(storage: Storage, path: str):
    storage.write("folder/f", b"")
    with pytest.raises(FileNotFoundError):
        storage.read(path)
    with pytest.raises(UserError, match="no such file"):
        open_file(f"{storage.url}/{path}")


@pytest.mark.parametrize("path", ["../f", "a/../../f", "/etc/passwd", "a//b", "./a", "a\\b", "a\0b", "", "a/"])
def test_a_path_that_could_leave_the_root_is_refused(storage: Storage, path: str):
    for use in (storage.read, lambda p: storage.write(p, b""), lambda p: storage.write_bundle("b", {p: b""})):
        with pytest.raises(UserError, match="refused"):
            use(path)


def test_many_files_are_read_in_order_and_checked(storage: Storage):
    for index in range(50):
        storage.write(f"f{index:02d}", bytes([index]))
    entries = list(storage.entries())
    random.Random(0).shuffle(entries)
    assert [(entry, data) for entry, data in read_many(storage, entries, 8)] == [
        (entry, bytes([int(entry.path[1:])])) for entry in entries
    ]
    storage.write(entries[30].path, b"other")
    with pytest.raises(ChangedFile, match=entries[30].path):
        list(read_many(storage, entries))


def test_deleting_takes_a_folder_and_leaves_its_neighbours(storage: Storage):
    for name in ("a/1", "a/b/2", "ab", "a.txt"):
        storage.write(name, b"x")
    storage.delete("a")
    storage.delete("not there")
    assert sorted(entry.path for entry in storage.entries()) == ["a.txt", "ab"]
    storage.delete("ab")
    assert [entry.path for entry in storage.entries()] == ["a.txt"]


def test_a_bundle_comes_back_as_it_was(storage: Storage, tmp_path: Path):
    big = tmp_path / "big"
    big.write_bytes(random.Random(1).randbytes(3_000_000))
    assert storage.write_bundle("model/3", {**FILES, "big": big})
    expected = {**FILES, "big": big.read_bytes()}
    assert storage.bundles("model") == ["3"]
    assert storage.read_bundle("model/3") == expected
    assert storage.read_bundle("model/3", tmp_path / "into" / "3") == {}
    there = {
        p.relative_to(tmp_path / "into/3").as_posix(): p.read_bytes()
        for p in (tmp_path / "into").rglob("*")
        if p.is_file()
    }
    manifest = json.loads(there.pop(MANIFEST))
    assert there == expected
    assert {path: said["size"] for path, said in manifest["files"].items()} == {p: len(d) for p, d in expected.items()}
    assert open_storage(str(tmp_path / "into")).manifest("3").digest() == storage.manifest("model/3").digest()


def test_a_bundle_is_never_overwritten(storage: Storage, tmp_path: Path):
    assert storage.write_bundle("b", {"f": b"first"})
    assert not storage.write_bundle("b", {"f": b"second"})
    assert storage.read_bundle("b") == {"f": b"first"}
    storage.read_bundle("b", tmp_path / "b")
    storage.read_bundle("b", tmp_path / "b")  # the same again is no conflict
    storage.write_bundle("c", {"f": b"other"})
    with pytest.raises(UserError, match="holds something else"):
        storage.read_bundle("c", tmp_path / "b")
    assert (tmp_path / "b/f").read_bytes() == b"first"


def test_of_many_writers_of_one_name_exactly_one_wins(storage: Storage):
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        own = pickle.loads(pickle.dumps(storage))  # a client, and a race, of its own
        own.check()
        barrier.wait()
        return own.write_bundle("b", {"who": str(number).encode(), "f": bytes(1000)})

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert storage.read_bundle("b")["who"] == str(won.index(True)).encode()
    left = {entry.path for entry in storage.entries()}
    storage.sweep()
    assert {entry.path for entry in storage.entries()} == left, "the losers left something behind"


def test_a_missing_bundle_is_not_found(storage: Storage, tmp_path: Path):
    for into in (None, tmp_path / "into"):
        with pytest.raises(FileNotFoundError):
            storage.read_bundle("none", into)
    assert storage.bundles("none") == []
    assert not (tmp_path / "into").exists()


def test_a_deleted_bundle_is_gone_whole(storage: Storage):
    for name in ("m/1", "m/10"):
        storage.write_bundle(name, FILES)
    storage.delete("m/1")
    assert storage.bundles("m") == ["10"]
    assert not list(storage.entries("m/1"))


def stored_as(storage: Storage, bundle: str, file: str) -> str:
    """The path under which a bundle's file is stored."""
    return next(e.path for e in storage.entries(bundle) if e.path.endswith(f"/{file}"))


def damaged_by(storage: Storage, what: str) -> None:
    if what == "a flipped byte":
        storage.write(stored_as(storage, "b", "saved_model.pb"), b"grapi")
    elif what == "a shorter file":
        storage.write(stored_as(storage, "b", "saved_model.pb"), b"gra")
    elif what == "a missing file":
        storage.delete(stored_as(storage, "b", "saved_model.pb"))
    elif what == "a manifest that is none":
        storage.write(f"b/{MANIFEST}", b"{")
    else:
        names = {"../../escaped": {"size": 1, "sha256": "0"}}
        storage.write(f"b/{MANIFEST}", json.dumps({"files": names}).encode())


@pytest.mark.parametrize(
    "what", ["a flipped byte", "a shorter file", "a missing file", "a manifest that is none", "a path that leaves"]
)
def test_damage_is_found_and_named_and_nothing_is_left(storage: Storage, tmp_path: Path, what: str):
    storage.write_bundle("b", FILES)
    damaged_by(storage, what)
    for into in (None, tmp_path / "deep" / "into"):
        with pytest.raises(DamagedBundle, match="/b: damaged"):
            storage.read_bundle("b", into)
    assert not (tmp_path / "deep/into").exists()
    assert not (tmp_path / "escaped").exists()


def test_a_download_that_broke_off_goes_on_where_it_was(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files: dict[str, bytes | Path] = {f"f{index}": bytes([index]) * 10 for index in range(6)}
    storage.write_bundle("b", files)
    read: list[str] = []
    fetch = _count_reads(storage, monkeypatch, read, fail_from=4)
    with pytest.raises(UserError, match="no more"):
        storage.read_bundle("b", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    kept = {p.name for p in tmp_path.rglob(".incomplete-*/f*")}
    assert kept, "nothing was kept of the broken download"
    read.clear()
    fetch["fail_from"] = 10**9
    storage.read_bundle("b", tmp_path / "b")
    assert {path.rpartition("/")[2] for path in read} - {MANIFEST} == set(files) - kept
    assert {p.name: p.read_bytes() for p in (tmp_path / "b").glob("f*")} == files
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def _count_reads(storage: Any, monkeypatch: pytest.MonkeyPatch, read: list[str], fail_from: int) -> dict[str, int]:
    """Notes every content that is read, and breaks off from the one of that number."""
    holder, name = (storage._objects, "get") if hasattr(storage, "_objects") else (storage, "read")
    original, control = getattr(holder, name), {"fail_from": fail_from}

    def counted(path: str, *rest: Any) -> bytes:
        read.append(path)
        if len(read) > control["fail_from"]:
            raise UserError("no more")
        return original(path, *rest)

    monkeypatch.setattr(holder, name, counted)
    return control


def test_a_sweep_removes_what_a_dead_writer_left_and_nothing_else(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    storage.write_bundle("m/1", FILES)
    storage.write("m/labels.json", b"{}")
    before = {entry.path for entry in storage.entries()}
    _die_before_the_commit(storage, monkeypatch, "m/2")
    assert storage.bundles("m") == ["1"]
    with pytest.raises(FileNotFoundError):
        storage.read_bundle("m/2")
    storage.sweep("m", older_than=3600)
    assert _left_behind(storage, before), "too young to be swept"
    storage.sweep("m")
    assert not _left_behind(storage, before)
    assert storage.read_bundle("m/1") == FILES
    assert storage.write_bundle("m/2", FILES), "the name is free again"


def _left_behind(storage: Storage, before: set[str]) -> bool:
    hidden = [*Path(storage.url).rglob(".incomplete-*")] if not storage.url.startswith("s3:") else []
    return bool(hidden) or {entry.path for entry in storage.entries()} != before


def _die_before_the_commit(storage: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Writes a bundle as a process does that is killed when all files are there but the last step is not done."""

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if hasattr(storage, "_objects"):
            patch.setattr("job.s3.put_once", killed)
        else:
            patch.setattr("job.local._publish", killed)
            patch.setattr("shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            storage.write_bundle(name, FILES)


def test_a_storage_can_be_pickled_and_carries_no_secret(storage: Storage, s3: Any):
    storage.write("f", b"1")
    data = pickle.dumps(storage)
    assert b"secret" not in data
    assert pickle.loads(data).read("f") == b"1"
