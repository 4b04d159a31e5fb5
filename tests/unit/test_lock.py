"""One driver per run."""

import json
import signal
import subprocess
import sys

import pytest

from job import lock
from job.errors import UserError
from job.storage import LocalStorage


@pytest.fixture
def run(tmp_path):
    return LocalStorage(tmp_path / "run")


def test_a_second_driver_is_told_where_the_first_one_is(run):
    with (
        lock.turn(run, "a"),
        pytest.raises(UserError, match=r"run a is at work on .* as process \d+ since"),
        lock.turn(run, "a"),
    ):
        pass


def test_turns_follow_each_other(run):
    for _ in range(3):
        with lock.turn(run, "a"):
            pass
    assert run.bundles(lock.FOLDER) == ["000003"]
    assert not [e.path for e in run.entries(lock.FOLDER) if e.path.endswith(".heartbeat")]


def test_an_error_ends_the_turn(run):
    with pytest.raises(RuntimeError), lock.turn(run, "a"):
        raise RuntimeError
    with lock.turn(run, "a"):
        pass


def test_the_turn_of_a_killed_process_is_taken_over_at_once(run):
    code = f"""
import os, signal
from job import lock
from job.storage import LocalStorage
with lock.turn(LocalStorage({run.url!r}), "a"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with lock.turn(run, "a"):
        assert run.bundles(lock.FOLDER) == ["000002"]


def elsewhere(run, number, beat):
    driver = {"host": "other-machine", "boot": "x", "pid": 1, "since": "then", "beat": beat}
    run.write(f"{lock.FOLDER}/{number:06d}.heartbeat", json.dumps(driver).encode())


def test_a_driver_on_another_machine_is_lost_when_its_heart_stands_still(run, monkeypatch):
    monkeypatch.setattr(lock, "_LOST_SECONDS", 0.3)
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.1)
    run.write_bundle(f"{lock.FOLDER}/000001", {"driver.json": b"{}"})
    elsewhere(run, 1, "still")
    with lock.turn(run, "a"):
        pass


def test_a_driver_on_another_machine_is_left_alone_while_its_heart_beats(run, monkeypatch):
    run.write_bundle(f"{lock.FOLDER}/000001", {"driver.json": b"{}"})
    elsewhere(run, 1, "one")
    monkeypatch.setattr(lock.time, "sleep", lambda _: elsewhere(run, 1, "two"))
    with pytest.raises(UserError, match="at work on other-machine as process 1 since then"), lock.turn(run, "a"):
        pass


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_a_driver_that_was_taken_over_is_interrupted(run, monkeypatch, ctrl_c):
    """Also where Ctrl-C is ignored, as it is by the background jobs of a shell script."""
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.05)
    before = signal.signal(signal.SIGINT, ctrl_c)

    def taken_over():
        with lock.turn(run, "a"):
            run.write_bundle(f"{lock.FOLDER}/000002", {"driver.json": b"{}"})
            lock.time.sleep(10)

    try:
        with pytest.raises(KeyboardInterrupt):
            taken_over()
    finally:
        signal.signal(signal.SIGINT, before)
