"""Versions into a store and their labels there: publish, versions, promote and rollback, with folders and a real S3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job.storage import MANIFEST, LocalStorage, open_storage
from serving.cli import main
from serving.registry import publish, read_labels, versions, write_labels
from tests.follower import FakeServer, add, files


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
    ],
)
def test_what_cannot_be_is_refused_in_one_line(source: str, capsys: pytest.CaptureFixture[str], words: str, said: str):
    add(source, 1, 2)
    write_labels(open_storage(source), {"stable": 1})
    assert main(words.format(source).split()) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert said in error
    assert read_labels(open_storage(source)) == {"stable": 1}


def test_a_server_that_is_away_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    add(str(tmp_path), 1)
    assert main(["promote", str(tmp_path), "1", "--unchecked", "--server", "http://127.0.0.1:9"]) == 1
    assert "no server answers" in capsys.readouterr().err
    assert read_labels(LocalStorage(tmp_path)) == {}


def test_a_server_must_have_loaded_what_it_is_asked_about(
    source: str, capsys: pytest.CaptureFixture[str], fake: FakeServer
):
    add(source, 1, 2)
    fake.loaded = {1}
    assert main(["promote", source, "2", "--unchecked", "--server", fake.url]) == 1
    assert "is not loaded there (loaded: 1)" in capsys.readouterr().err
    assert main(["promote", source, "1", "--unchecked", "--server", fake.url]) == 0


def test_broken_labels_are_an_error_and_stay(source: str, capsys: pytest.CaptureFixture[str]):
    add(source, 1)
    open_storage(source).write("labels.json", b'{"stable": "one"}')
    assert main(["promote", source, "1", "--unchecked"]) == 1
    assert "labels.json: not an object" in capsys.readouterr().err
    assert open_storage(source).read("labels.json") == b'{"stable": "one"}'


@pytest.mark.parametrize("words", ["--keep 1", "--keep 0 --server http://x", "--interval 0"])
def test_wrong_options_exit_with_2(tmp_path: Path, words: str):
    assert main(["pull", str(tmp_path), str(tmp_path / "m"), *words.split()]) == 2
