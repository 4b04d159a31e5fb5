"""Which versions are served as a folder changes: only good ones, and always one."""

from __future__ import annotations

import gc
import json
import re
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from job.storage import LocalStorage
from serving.errors import Code, ServingError
from serving.repository import Repository
from tests.serving_support import NAME, place, recorded, write_labels


class Watched:
    """A repository on a folder, its log, and its answers for one scan."""

    def __init__(self, root: Path, scan: bytes) -> None:
        self.root = root
        self.log: list[str] = []
        self.repository = Repository(root, NAME, self.log.append)
        self._inputs = {"image_bytes": np.array([scan], object)}

    def poll(self) -> dict[int, str]:
        """What is served after a look at the folder, and what happened to the rest."""
        self.repository.poll()
        return {each.version: each.state.name for each in self.repository.statuses(NAME)}

    def answer(self, number: int | None = None, label: str | None = None) -> float:
        """The probability of the scan."""
        with self.repository.version(number, label) as loaded:
            return float(loaded.model.predict("predict_bytes", self._inputs)["probability"][0])


@pytest.fixture
def watched(tmp_path: Path, exported: list[Path], scans: dict[str, bytes]) -> Watched:
    """A repository that serves version 1."""
    place(exported[0], tmp_path, 1)
    watched = Watched(tmp_path, scans["gray.png"])
    assert watched.poll() == {1: "AVAILABLE"}
    return watched


@pytest.fixture(scope="module")
def expected(exported: list[Path]) -> list[object]:
    """What each of the exported versions must answer."""
    return [pytest.approx(recorded(version, "gray.png"), abs=1e-5) for version in exported]


def test_a_new_version_replaces_the_old_one(watched: Watched, exported: list[Path], expected: list[object]) -> None:
    assert watched.answer() == expected[0]
    place(exported[1], watched.root, 2)
    assert watched.poll() == {1: "END", 2: "AVAILABLE"}
    assert watched.answer() == expected[1]
    with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(covid_ct, 1\)"):
        watched.answer(number=1)


def test_nothing_of_a_version_is_left_after_the_look_that_follows_its_unloading(
    watched: Watched, exported: list[Path]
) -> None:
    gc.disable()  # by itself the collector comes some time, which may be much later
    try:
        with watched.repository.version() as loaded:
            graph = weakref.ref(loaded.model._session.graph)
        del loaded
        place(exported[1], watched.root, 2)
        assert watched.poll() == {1: "END", 2: "AVAILABLE"}
        watched.poll()
        assert graph() is None
    finally:
        gc.enable()


def test_a_version_in_use_stays_until_its_last_request_is_answered(
    watched: Watched, exported: list[Path], expected: list[object]
) -> None:
    place(exported[1], watched.root, 2)
    with watched.repository.version() as one, watched.repository.version() as two:
        assert watched.poll() == {1: "UNLOADING", 2: "AVAILABLE"}
        assert watched.answer() == expected[1]
        probability = one.model.predict("predict_bytes", watched._inputs)["probability"][0]
        assert float(probability) == expected[0]
        assert one is two
    assert watched.poll() == {1: "END", 2: "AVAILABLE"}


def spoiled(version: Path, root: Path, path: str, data: bytes) -> None:
    """Places the version as version 2 with one file changed, and a manifest that says so."""
    files: dict[str, bytes | Path] = {**LocalStorage(version.parent).read_bundle(version.name), path: data}
    assert LocalStorage(root / NAME).write_bundle("2", files)


def put_corrupt(version: Path, root: Path) -> None:
    (place(version, root, 2) / "saved_model.pb").write_bytes(b"broken")


def put_half(version: Path, root: Path) -> None:
    shutil.copytree(version, root / NAME / "2", ignore=shutil.ignore_patterns("MANIFEST.json"))


def put_unloadable(version: Path, root: Path) -> None:
    spoiled(version, root, "saved_model.pb", b"broken")


def put_wrong(version: Path, root: Path) -> None:
    path = "assets.extra/evaluation.json"
    evaluation = json.loads((version / path).read_text())
    evaluation["warmup"][0]["probability"][0] += 0.1
    spoiled(version, root, path, json.dumps(evaluation).encode())


@pytest.mark.parametrize(
    ("put", "message", "known"),
    [
        (put_corrupt, "version 2 is not served: .*saved_model.pb has 6 bytes", True),
        (put_half, "version 2 is not complete: it has no MANIFEST.json", False),
        (put_unloadable, "version 2 is not served: .*TensorFlow cannot load it", True),
        (put_wrong, "version 2 is not served: .*its warm-up check fails", True),
    ],
)
def test_a_bad_version_is_never_served_and_said_once(
    watched: Watched,
    exported: list[Path],
    expected: list[object],
    put: Callable[[Path, Path], None],
    message: str,
    known: bool,
) -> None:
    put(exported[1], watched.root)
    before = len(watched.log)
    for _ in range(3):
        assert watched.poll() == ({1: "AVAILABLE", 2: "END"} if known else {1: "AVAILABLE"})
        assert watched.answer() == expected[0]
    assert len(watched.log) == before + 1
    assert re.search(message, watched.log[-1])
    with pytest.raises(ServingError, match="Servable not found"):
        watched.answer(number=2)
    shutil.rmtree(watched.root / NAME / "2")
    place(exported[1], watched.root, 2)  # the same number, good at last
    assert watched.poll() == {1: "END", 2: "AVAILABLE"}
    assert watched.answer() == expected[1]


def test_the_status_says_why_a_version_is_not_served(watched: Watched, exported: list[Path]) -> None:
    put_wrong(exported[1], watched.root)
    watched.poll()
    [status] = watched.repository.statuses(NAME, 2)
    assert status.code is Code.FAILED_PRECONDITION
    assert "its warm-up check fails" in status.message


def test_the_newest_good_version_is_served_from_the_start(
    tmp_path: Path, exported: list[Path], scans: dict[str, bytes]
) -> None:
    for number in (1, 2, 10):
        place(exported[0], tmp_path, number)
    (tmp_path / NAME / "10" / "saved_model.pb").write_bytes(b"broken")
    for name in ("0", "007", "1.5", "latest", "-3", ".incomplete-11"):
        shutil.copytree(exported[0], tmp_path / NAME / name)
    assert Watched(tmp_path, scans["gray.png"]).poll() == {2: "AVAILABLE", 10: "END"}


def test_labels_keep_versions_loaded_and_move_only_to_loaded_ones(
    watched: Watched, exported: list[Path], expected: list[object]
) -> None:
    write_labels(watched.root, stable=1)
    place(exported[1], watched.root, 2)
    assert watched.poll() == {1: "AVAILABLE", 2: "AVAILABLE"}
    write_labels(watched.root, stable=1, canary=2)
    watched.poll()
    assert [watched.answer(label=label) for label in ("stable", "canary", None)] == [
        expected[0],
        expected[1],
        expected[1],
    ]

    write_labels(watched.root, stable=3, canary=2)  # there is no version 3 yet
    watched.poll()
    watched.poll()
    assert watched.log.count("label stable stays where it is: version 3 is not loaded") == 1
    assert watched.answer(label="stable") == expected[0]
    place(exported[2], watched.root, 3)
    assert watched.poll() == {1: "END", 2: "AVAILABLE", 3: "AVAILABLE"}
    assert watched.answer(label="stable") == expected[2]

    write_labels(watched.root, stable=1)  # back, without a restart
    assert watched.poll() == {1: "AVAILABLE", 2: "END", 3: "AVAILABLE"}
    assert watched.answer(label="stable") == expected[0]
    assert watched.answer() == expected[2]
    with pytest.raises(ServingError, match="Unrecognized servable version label: canary"):
        watched.answer(label="canary")


def test_a_label_does_not_move_to_a_bad_version(watched: Watched, exported: list[Path], expected: list[object]) -> None:
    write_labels(watched.root, stable=1)
    watched.poll()
    put_wrong(exported[1], watched.root)
    write_labels(watched.root, stable=2)
    assert watched.poll() == {1: "AVAILABLE", 2: "END"}
    assert watched.answer(label="stable") == expected[0]


@pytest.mark.parametrize("content", ["{", "[1]", '{"stable": "1"}', '{"stable": 0}', '{"stable": true}', '"stable"'])
def test_labels_that_cannot_be_read_change_nothing(watched: Watched, content: str) -> None:
    write_labels(watched.root, stable=1)
    watched.poll()
    LocalStorage(watched.root / NAME).write("labels.json", content.encode())
    watched.poll()
    watched.poll()
    assert watched.repository.labels() == {"stable": 1}
    assert sum("labels stay as they are" in line for line in watched.log) == 1


def test_an_emptied_folder_leaves_the_last_version_answering(watched: Watched, expected: list[object]) -> None:
    shutil.rmtree(watched.root / NAME / "1")
    assert watched.poll() == {1: "AVAILABLE"}
    shutil.rmtree(watched.root)
    assert watched.poll() == {1: "AVAILABLE"}
    assert watched.answer() == expected[0]


def test_other_models_have_no_versions(watched: Watched) -> None:
    with (
        pytest.raises(ServingError, match=r"Servable not found for request: Latest\(other\)"),
        watched.repository.version(name="other"),
    ):
        pass
    with pytest.raises(ServingError, match="Could not find any versions of model other"):
        watched.repository.statuses("other")
