"""A kill costs time, not result: workers and drivers ended at random moments, and the weights of an undisturbed run.

`COVID_CT_KILLS=20` repeats the random kills that often; `COVID_CT_SEED` sets their moments.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from job import checkpoint, sample
from job.storage import LocalStorage

EPOCHS = 24
SMALL = [
    "model.filters=[4, 8]", "model.pool_size=5", "model.dense=16", "data.per_class=null", "training.batch_size=16",
    f"training.epochs={EPOCHS}", "cluster.workers=2", "cluster.checkpoint_every_steps=4", "model.dropout=0.2",
    "cluster.collective_timeout=10",
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with scans, a cache, and an undisturbed run named `whole`."""
    folder = tmp_path_factory.mktemp("recovery")
    storage = LocalStorage(folder / "scans")
    for drawing in sample.draw(33, seed=0):
        storage.write(drawing.path, drawing.data)
    done = start(folder, "whole").communicate()[1]
    assert checkpoint.finished(run(folder, "whole"), EPOCHS), done
    return folder


def run(folder: Path, name: str) -> LocalStorage:
    return LocalStorage(folder / "runs" / name)


def start(folder: Path, name: str, *more: str) -> subprocess.Popen:
    overrides = [f"data.root={folder}/scans", f"runs={folder}/runs", f"export.root={folder}/models", *SMALL, *more]
    command = [sys.executable, "-m", "job", "train", "--run", name, *(w for o in overrides for w in ("--set", o))]
    environment = os.environ | {"COVID_CT_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def workers(driver: subprocess.Popen) -> list[int]:
    """The processes of the training workers below a driver."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue

    def descends(pid):
        while pid in parents:
            if parents[pid] == driver.pid:
                return True
            pid = parents[pid]
        return False

    return sorted(pid for pid, title in titles.items() if title.startswith("ray::RayTrainWorker") and descends(pid))


def wait_for(condition, seconds=180.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def assert_same_result(base: Path, name: str) -> None:
    states = []
    for each in ("whole", name):
        storage = run(base, each)
        found = checkpoint.newest(storage, pytest.fail)
        assert found, f"{each} has no checkpoint"
        states.append(checkpoint.load(storage, found))
    assert states[1].epoch == EPOCHS
    for whole, other in zip(states[0].weights, states[1].weights, strict=True):
        np.testing.assert_array_equal(whole, other)
    lines = [[json.loads(line) for line in run(base, n).read("metrics.jsonl").splitlines()] for n in ("whole", name)]
    figures = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
    assert [[line[f] for f in figures] for line in lines[0]] == [[line[f] for f in figures] for line in lines[1]]


@pytest.mark.timeout(600)
def test_a_run_survives_a_worker_that_is_killed_and_another_that_hangs(base):
    driver = start(base, "hurt")
    try:
        wait_for(lambda: run(base, "hurt").bundles("checkpoints") or driver.poll() is not None)
        killed = workers(driver)[-1]
        os.kill(killed, signal.SIGKILL)
        reached = run(base, "hurt").bundles("checkpoints")[-1]
        wait_for(lambda: run(base, "hurt").bundles("checkpoints")[-1] > reached or driver.poll() is not None)
        hung = workers(driver)[-1]
        os.kill(hung, signal.SIGSTOP)
        _, said = driver.communicate(timeout=400)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
    assert driver.returncode == 0, said
    assert killed != hung
    assert not Path(f"/proc/{hung}").exists()
    assert_same_result(base, "hurt")


@pytest.mark.timeout(3600)
def test_a_run_killed_at_random_moments_ends_with_the_weights_of_an_undisturbed_run(base):
    kills = int(os.environ.get("COVID_CT_KILLS", "1"))
    seed = int(os.environ.get("COVID_CT_SEED", time.time_ns() % 10**6))
    print(f"COVID_CT_SEED={seed}")
    chance, name, done = random.Random(seed), f"random-{seed}", 0
    while done < kills:
        driver = start(base, f"{name}-{done}")
        storage = run(base, f"{name}-{done}")
        while done < kills and driver.poll() is None:
            # Before the first step, between two checkpoints, during one, in evaluation or export: wherever it falls.
            time.sleep(chance.uniform(4, 20))
            if driver.poll() is not None:
                break
            found = workers(driver)
            victim = chance.choice([driver.pid, *found])
            whom, reached = "driver" if victim == driver.pid else "worker", storage.bundles("checkpoints")[-1:]
            print(f"kill {done}: {whom} at {reached}")
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(victim, signal.SIGKILL)
            done += 1
            if victim == driver.pid:
                driver.communicate()
                driver = start(base, storage.url.rpartition("/")[2])
        _, said = driver.communicate(timeout=600)
        assert driver.returncode == 0, said
        assert_same_result(base, storage.url.rpartition("/")[2])


def test_a_second_submission_of_a_running_run_starts_no_second_trainer(base):
    first = start(base, "twice")
    try:
        wait_for(lambda: (base / "runs" / "twice" / "turns").is_dir())
        second = start(base, "twice")
        _, said = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"as process {first.pid} since" in said
        assert "Traceback" not in said
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
