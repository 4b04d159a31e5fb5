"""A kill costs time, not result: workers, drivers, clusters and disks fail, and the weights are those of an undisturbed
run.

`COVID_CT_KILLS=20` repeats the random kills that often; `COVID_CT_SEED` sets their moments, victims and signals.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from job import checkpoint, sample
from job.storage import LocalStorage
from tests.ray_cluster import RayCluster, kill_tree, ray_cluster

EPOCHS = 24
SMALL = [
    "model.filters=[4, 8]", "model.pool_size=5", "model.dense=16", "data.per_class=null", "training.batch_size=16",
    f"training.epochs={EPOCHS}", "cluster.workers=2", "cluster.checkpoint_every_steps=4", "model.dropout=0.2",
    "cluster.collective_timeout=10",
]  # fmt: skip
DRIVERS: list[subprocess.Popen] = []
CLUSTER = (["--num-cpus=2", "--include-dashboard=false", "--object-store-memory=100000000"], [], {})


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


def start(folder: Path, name: str, *more: str, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    overrides = [f"data.root={folder}/scans", f"runs={folder}/runs", f"export.root={folder}/models", *SMALL, *more]
    command = [sys.executable, "-m", "job", "train", "--run", name, *(w for o in overrides for w in ("--set", o))]
    environment = {**(env or os.environ), "COVID_CT_CACHE": str(folder / "cache")}
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    DRIVERS.append(driver)
    return driver


@pytest.fixture(autouse=True)
def no_driver_left():
    """Ends what a test that failed has left."""
    yield
    while DRIVERS:
        driver = DRIVERS.pop()
        if driver.poll() is None:
            kill_tree(driver)


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


def next_checkpoint(storage: LocalStorage, driver: subprocess.Popen) -> None:
    """Returns when there is another checkpoint, or the driver has ended."""
    reached = storage.bundles("checkpoints")
    wait_for(lambda: storage.bundles("checkpoints") != reached or driver.poll() is not None, 300)


def assert_same_result(base: Path, other: LocalStorage) -> None:
    """The weights and metrics of an undisturbed run, bit for bit."""
    states, lines = [], []
    for storage in (run(base, "whole"), other):
        found = checkpoint.newest(storage, pytest.fail)
        assert found, f"{storage.url} has no checkpoint"
        states.append(checkpoint.load(storage, found))
        lines.append([json.loads(line) for line in storage.read("metrics.jsonl").splitlines()])
    assert states[1].epoch == EPOCHS
    for whole, resumed in zip(states[0].weights, states[1].weights, strict=True):
        np.testing.assert_array_equal(whole, resumed)
    figures = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
    assert [[line[f] for f in figures] for line in lines[0]] == [[line[f] for f in figures] for line in lines[1]]


@pytest.mark.timeout(600)
def test_a_run_survives_a_worker_that_hangs_and_when_it_gives_up_goes_on_with_the_same_command(base):
    storage = run(base, "hurt")

    def hit(driver: subprocess.Popen, which: int, signal_number: int) -> int:
        """Signals one of the two workers once there is a new checkpoint; its process."""
        next_checkpoint(storage, driver)
        victim = workers(driver)[which]
        os.kill(victim, signal_number)
        return victim

    driver = start(base, "hurt", "cluster.max_failures=1")
    hung = hit(driver, 0, signal.SIGSTOP)
    wait_for(lambda: not Path(f"/proc/{hung}").exists())
    killed = hit(driver, 1, signal.SIGKILL)
    _, said = driver.communicate(timeout=200)
    assert driver.returncode == 1
    assert re.search(rf"worker \d \(process {hung} on \S+\) does not answer.*failure 1 of at most 1", said), said
    assert "goes on from its newest checkpoint with 2 of 2 worker(s)" in said
    assert re.search(rf"worker \d \(process {killed} on \S+\) is gone.*given up after 1 ", said.splitlines()[-1]), said
    assert "Traceback" not in said
    again = start(base, "hurt", "cluster.max_failures=1")
    _, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert_same_result(base, storage)


@pytest.mark.timeout(300)
def test_a_run_whose_whole_cluster_is_killed_goes_on_in_another(base):
    storage = run(base, "lost")

    def start_on(cluster: RayCluster) -> subprocess.Popen:
        return start(base, "lost", env={**cluster.environment, "RAY_ADDRESS": cluster.address})

    with ray_cluster(*CLUSTER) as cluster:
        driver = start_on(cluster)
        next_checkpoint(storage, driver)
        cluster.kill()
        kill_tree(driver)
        driver.communicate()
    assert not checkpoint.finished(storage, EPOCHS)
    with ray_cluster(*CLUSTER) as cluster:
        driver = start_on(cluster)
        _, said = driver.communicate(timeout=200)
    assert driver.returncode == 0, said
    assert "catalog: 66 scans, as before" in said
    assert_same_result(base, storage)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "covid-ct", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):  # to the last byte
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    assert shutil.disk_usage(disk).free == 0
    return ballast


@pytest.mark.timeout(400)
def test_a_full_disk_is_said_and_costs_checkpoints_and_time_but_not_the_result(base, small_disk):
    storage = LocalStorage(small_disk / "runs" / "full")
    there = [f"runs={small_disk}/runs", "cluster.max_failures=0"]

    def begun() -> subprocess.Popen:
        driver = start(base, "full", *there)
        next_checkpoint(storage, driver)
        return driver

    # Full to the end: one clear line, and a run that can go on.
    driver = begun()
    ballast = fill(small_disk)
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "no checkpoint this time, training goes on" in said
    assert said.splitlines()[-1].endswith("cannot be written: No space left on device")
    assert "Traceback" not in said
    assert not checkpoint.finished(storage, EPOCHS)

    # Full for a while: the run goes on by itself.
    ballast.unlink()
    driver = begun()
    ballast = fill(small_disk)
    assert driver.stderr is not None
    for line in driver.stderr:
        if "no checkpoint this time, training goes on" in line:
            break
    ballast.unlink()
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 0, said
    assert_same_result(base, storage)


@pytest.mark.timeout(3600)
def test_a_run_hit_at_random_moments_ends_with_the_weights_of_an_undisturbed_run(base):
    hits = int(os.environ.get("COVID_CT_KILLS", "1"))
    seed = int(os.environ.get("COVID_CT_SEED", time.time_ns() % 10**6))
    print(f"COVID_CT_SEED={seed}")
    chance, done = random.Random(seed), 0
    for number in itertools.count():
        name = f"random-{seed}-{number}"
        driver, storage = start(base, name, "cluster.max_failures=20"), run(base, name)
        while done < hits and driver.poll() is None:
            # Mostly while it trains (at a checkpoint, between two), else wherever it falls: while workers start, in
            # evaluation, in the export.
            if chance.random() < 0.7:
                next_checkpoint(storage, driver)
                time.sleep(chance.uniform(0, 3))
            else:
                time.sleep(chance.uniform(4, 16))
            whom, what = chance.choice(["driver", "a worker", "the other"]), chance.choice(["KILL", "TERM", "STOP"])
            victims = [driver.pid] if whom == "driver" else workers(driver)
            if driver.poll() is not None or not victims:
                continue
            print(f"hit {done}: SIG{what} to {whom} of {name} at {storage.bundles('checkpoints')[-1:]}", flush=True)
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(victims[-1 if whom == "the other" else 0], signal.Signals[f"SIG{what}"])
            done += 1
            if whom == "driver" and what == "STOP":
                time.sleep(5)
                os.kill(driver.pid, signal.SIGCONT)
            elif whom == "driver":
                driver.communicate(timeout=60)
                driver = start(base, name, "cluster.max_failures=20")
        _, said = driver.communicate(timeout=600)
        print("\n".join(line for line in said.splitlines() if not line.startswith("epoch")), flush=True)
        assert driver.returncode == 0, said
        assert_same_result(base, storage)
        if done >= hits:
            return


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
