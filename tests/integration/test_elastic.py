"""A machine leaves a run and comes back: two Ray nodes on hosts of their own, token authentication on.

The hosts are network namespaces joined by a veth pair, each with its own cache.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from job import checkpoint, sample, settings
from job.storage import LocalStorage
from tests.hosts import two_hosts
from tests.ray_cluster import RayCluster, kill_tree, ray_cluster
from tests.training_support import outcome, trained_in_a_process

EPOCHS = 60
SMALL = [
    "model.filters=[2, 4]", "model.pool_size=5", "model.dense=8", "data.per_class=null", "training.batch_size=16",
    f"training.epochs={EPOCHS}", "cluster.checkpoint_every_steps=5",
    "cluster.collective_timeout=10",
]  # fmt: skip
NODE = ["--num-cpus=1", "--object-store-memory=100000000"]


@pytest.fixture(scope="module")
def hosts():
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    storage = LocalStorage(folder / "scans")
    for drawing in sample.draw(33, seed=0):
        storage.write(drawing.path, drawing.data)
    return folder


def command(base: Path, name: str, *more: str) -> list[str]:
    overrides = [f"data.root={base}/scans", f"runs={base}/runs", f"export.root={base}/models", *SMALL, *more]
    return [sys.executable, "-m", "job", "train", "--run", name, *(w for o in overrides for w in ("--set", o))]


class Driver:
    """`python -m job train` on the head's host, and what it has said so far."""

    def __init__(self, cluster: RayCluster, host, base: Path, name: str, *more: str) -> None:
        self.said = base / f"{name}.err"
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address, "COVID_CT_CACHE": f"{base}/cache-a"}
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                host.command(*command(base, name, *more)), env=environment, stdout=subprocess.DEVNULL, stderr=said,
                start_new_session=True,
            )  # fmt: skip

    def wait_for(self, *texts: str, seconds: float = 120) -> None:
        """Returns once it has said these texts one after the other."""
        pattern = re.compile(".*".join(map(re.escape, texts)), re.DOTALL)
        deadline = time.monotonic() + seconds
        while not pattern.search(self.said.read_text()):
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, f"not in time: {texts}\n{self.said.read_text()}"
            time.sleep(0.1)
        print(f"{time.monotonic():.0f} s: {texts}")


def workers(cluster: RayCluster) -> list[int]:
    """The processes of the cluster's training workers."""
    mark, found = os.fsencode(cluster.folder), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
                found += [int(folder.name)] if mark in (folder / "environ").read_bytes() else []
    return found


@contextlib.contextmanager
def crawling(cluster: RayCluster) -> Iterator[None]:
    """Lets the workers run for a tenth of the time only, so that training does not end before the test does."""
    ended = threading.Event()

    def signal_all(number: int) -> None:
        for pid in workers(cluster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def crawl() -> None:
        while not ended.wait(0.1):
            signal_all(signal.SIGSTOP)
            ended.wait(0.9)
            signal_all(signal.SIGCONT)

    thread = threading.Thread(target=crawl)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def alone(base: Path) -> checkpoint.State:
    """The final state of an undisturbed run on the same scans, in one process with a worker's threads."""
    config = settings.load(None, [f"data.root={base}/scans", *SMALL])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVID_CT_CACHE", str(base / "cache-a"))
        return trained_in_a_process(config, LocalStorage(base / "runs" / "elastic"), LocalStorage(base / "alone"))


@pytest.mark.timeout(400)
def test_a_run_goes_on_with_fewer_workers_when_a_node_leaves_and_with_more_when_it_returns(hosts, base):
    near, far = hosts
    caches = {end: base / f"cache-{end}" for end in "abc"}
    with ray_cluster([*NODE, "--include-dashboard=false"], [], {"COVID_CT_CACHE": str(caches["a"])}, [near]) as cluster:
        cluster.start_worker(far, *NODE, env={"COVID_CT_CACHE": str(caches["b"])})
        driver = Driver(cluster, near, base, "elastic", "cluster.workers=2", "cluster.min_workers=1")
        try:
            driver.wait_for("epoch 2/")
            kill_tree(cluster.nodes.pop())
            driver.wait_for("with 1 of 2 worker(s)", "epoch ")
            with crawling(cluster):
                cluster.start_worker(far, *NODE, env={"COVID_CT_CACHE": str(caches["c"])})
                driver.wait_for("the cluster has room for 2 workers instead of 1")
            driver.wait_for("with 2 of 2 worker(s)")
            code = driver.process.wait(200)
        finally:
            kill_tree(driver.process)
        said = driver.said.read_text()
        assert code == 0, said
    # One failure, and none for the change to more workers.
    assert re.search(rf"worker \d \(process \d+ on {far.address}\) .*\(failure 1 of at most 3\)", said), said
    assert "(failure 2 of" not in said
    lines, state = outcome(LocalStorage(base / "runs" / "elastic"))
    whole = alone(base)
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    for ours, theirs in zip(lines, whole.history, strict=True):
        assert (ours["loss"], ours["val_loss"]) == (theirs["loss"], theirs["val_loss"])
    for ours, theirs in zip(state.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Each machine has decoded its share of the 48 + 6 scans in whole micro-batches: as one of two workers 24 and, of
    # the three micro-batches of val, one or two; as the only one all (and then the 12 of the test part, in evaluation).
    decoded = {end: len(list(folder.rglob("*.rgb"))) for end, folder in caches.items()}
    assert decoded["a"] == 66
    assert {decoded["b"], decoded["c"]} <= {26, 28}
