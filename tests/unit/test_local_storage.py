"""A folder as storage: whole or not at all, whatever happens in between, and whoever else writes."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import job.local
from job.storage import LocalStorage, read_many


class Killed(BaseException):
    """The process ends here: no handler and no cleaning up runs."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The `step`-th system call that changes the disk's state is the last one that is reached."""
    left, remove_all = [step], shutil.rmtree
    originals: list[tuple[Any, str, Callable[..., Any]]] = [
        (holder, name, getattr(holder, name))
        for holder, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree"))
    ]

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if left[0] <= 0:
                if original is remove_all:
                    # Death in the midst of removing a folder: some of it is gone.
                    for file in [each for each in sorted(args[0].rglob("*")) if each.is_file()][-1:]:
                        os.remove(file)  # noqa: PTH107  (Path.unlink is among the calls that never come)
                raise Killed
            left[0] -= 1
            return original(*args, **options)

        return call

    for holder, name, original in originals:
        setattr(holder, name, wrapped(original))
    try:
        yield
    finally:
        for holder, name, original in originals:
            setattr(holder, name, original)


PATHS = st.sampled_from(["a", "a.b", "d/x", "d/y", "d/e/z", "ä ß%0", "e"])
CONTENTS = st.binary(max_size=40)
BUNDLES = st.sampled_from(["m/1", "m/2", "m/10", "n/1"])
STEPS = st.integers(0, 12)


class Machine(RuleBasedStateMachine):
    """Files and bundles beside a dictionary that says what must be there, with kills in between."""

    @initialize()
    def start(self) -> None:
        """An empty folder."""
        self.root = Path(job.local.tempfile.mkdtemp())
        self.storage = LocalStorage(self.root / "files")
        self.archive = LocalStorage(self.root / "bundles")
        for each in ("files", "bundles"):
            (self.root / each).mkdir()
        self.files: dict[str, bytes] = {}
        self.held: dict[str, dict[str, bytes]] = {}

    def teardown(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.root)

    @rule(path=PATHS, data=CONTENTS)
    def write(self, path: str, data: bytes) -> None:
        """Replaces a file."""
        self.storage.write(path, data)
        self.files[path] = data

    @rule(path=PATHS, data=CONTENTS, step=STEPS)
    def write_and_die(self, path: str, data: bytes, step: int) -> None:
        """The old content or the new one is there afterwards."""
        try:
            with killed_at(step):
                self.storage.write(path, data)
        except Killed:
            try:
                there = self.storage.read(path)
            except FileNotFoundError:
                assert path not in self.files
                return
            assert there in (data, self.files.get(path))
            self.files[path] = there
        else:
            self.files[path] = data

    @rule(prefix=st.sampled_from(["a", "d", "d/e", "d/x", "none"]))
    def delete(self, prefix: str) -> None:
        """Removes a file or a folder."""
        self.storage.delete(prefix)
        self.files = {p: d for p, d in self.files.items() if p != prefix and not p.startswith(f"{prefix}/")}

    @rule(name=BUNDLES, files=st.dictionaries(st.sampled_from(["x", "v/y", "v/z"]), CONTENTS, max_size=3), step=STEPS)
    def write_bundle_and_die(self, name: str, files: dict[str, bytes], step: int) -> None:
        """Whole or not there; never another one's content."""
        try:
            with killed_at(step):
                won = self.archive.write_bundle(name, files)
        except Killed:
            folder, _, last = name.partition("/")
            won = name not in self.held and last in self.archive.bundles(folder)
        else:
            assert won == (name not in self.held), "a dead writer must not block the name"
        if won:
            self.held[name] = files

    @rule(name=BUNDLES, step=STEPS)
    def delete_bundle_and_die(self, name: str, step: int) -> None:
        """Whole or gone."""
        try:
            with killed_at(step):
                self.archive.delete(name)
        except Killed:
            folder, _, last = name.partition("/")
            if last in self.archive.bundles(folder):
                return
        self.held.pop(name, None)

    @rule()
    def sweep(self) -> None:
        """What the dead left goes, and nothing else."""
        for each in (self.storage, self.archive):
            each.sweep()
        assert not list(self.root.rglob(".incomplete-*"))

    @invariant()
    def readers_see_what_was_written(self) -> None:
        """At any moment."""
        if not hasattr(self, "root"):
            return
        entries = list(self.storage.entries())
        assert [entry.path for entry in entries] == sorted(self.files)
        assert (
            dict(zip(sorted(self.files), (d for _, d in read_many(self.storage, entries, 2)), strict=True))
            == self.files
        )
        for top in ("m", "n"):
            assert self.archive.bundles(top) == sorted(n[2:] for n in self.held if n.startswith(top))
        for name, files in self.held.items():
            assert self.archive.read_bundle(name) == files


TestLocalStorage = Machine.TestCase
TestLocalStorage.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_a_bundle_written_by_a_process_that_is_killed_is_whole_or_not_there(tmp_path: Path):
    """Real processes, killed at random moments of their work; readers look all the time."""
    program = (
        "import sys; from job.local import LocalStorage\n"
        "storage = LocalStorage(sys.argv[1]); print(flush=True)\n"
        "files = {f'f{i}': bytes([i]) * 20000 for i in range(5)}\n"
        "for n in range(10**6): storage.write_bundle(f'{sys.argv[2]}-{n}', files)"
    )
    storage, chance, seen = LocalStorage(tmp_path / "b"), random.Random(0), 0
    for attempt in range(12):
        command = [sys.executable, "-c", program, str(tmp_path / "b"), str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.08))
            process.send_signal(signal.SIGKILL)
        for name in storage.bundles():
            assert storage.read_bundle(name) == {f"f{i}": bytes([i]) * 20000 for i in range(5)}
            seen += 1
    assert seen, "no process lived long enough to write anything"
    storage.sweep()
    assert not list(tmp_path.rglob(".incomplete-*"))


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path):
    """The limit is the process's (RLIMIT_FSIZE), since a test cannot fill a disk; the error is as real."""
    program = (
        "import resource, signal, sys; from job.errors import UserError; from job.local import LocalStorage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "storage = LocalStorage(sys.argv[1])\n"
        "for use in (lambda: storage.write('f', bytes(9000)), lambda: storage.write_bundle('b', {'f': bytes(9000)})):\n"
        "    try: use()\n"
        "    except UserError as error: print(error)\n"
    )
    storage = LocalStorage(tmp_path)
    storage.write("f", b"old")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'f'}: cannot be written: File too large",
        f"{tmp_path / 'b'}: cannot be written: File too large",
    ]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"f": b"old"}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 5000


def test_writers_of_one_file_in_many_threads_leave_one_whole_content(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    threads = [threading.Thread(target=lambda n=n: storage.write("f", bytes([n]) * 50_000)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = storage.read("f")
    assert len(content) == 50_000
    assert len(set(content)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_two_downloads_to_one_folder_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    storage = LocalStorage(tmp_path / "from")
    files = {f"f{index}": bytes([index]) * 1000 for index in range(8)}
    storage.write_bundle("b", files)
    original = job.local._write_synced

    def slowly(path: Path, content: bytes | Path) -> Any:
        time.sleep(0.01)
        return original(path, content)

    monkeypatch.setattr(job.local, "_write_synced", slowly)
    failed: list[BaseException] = []

    def read() -> None:
        try:
            storage.read_bundle("b", tmp_path / "to" / "b")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert LocalStorage(tmp_path / "to").read_bundle("b") == files
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["b"]


def test_a_sweep_leaves_writers_that_come_and_go_beside_it_alone(tmp_path: Path):
    storage, bundle = LocalStorage(tmp_path), {f"folder/{each}": b"1" for each in range(3)}
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(_write_and_delete, storage, f"m/{each}", bundle) for each in range(2)]
        while not all(writer.done() for writer in writers):
            storage.sweep("m", older_than=3600)
    assert [writer.result() for writer in writers] == [True, True]
    storage.sweep("m")
    assert not list((tmp_path / "m").iterdir())


def _write_and_delete(storage: LocalStorage, name: str, bundle: dict[str, bytes]) -> bool:
    """Whether every bundle was written and whole."""
    whole = True
    for _ in range(50):
        whole &= storage.write_bundle(name, bundle) and storage.read_bundle(name) == bundle
        storage.delete(name)
    return whole
