"""A machine leaves a run and comes back: two Ray nodes on hosts of their own, token authentication on.

The hosts are network namespaces joined by a veth pair, each with its own cache.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from job import checkpoint, sample
from job.storage import LocalStorage
from tests.hosts import two_hosts, unplug
from tests.ray_cluster import RayCluster, kill_tree, ray_cluster

EPOCHS = 60
SMALL = [
    "model.filters=[2, 4]", "model.pool_size=5", "model.dense=8", "data.per_class=null", "training.batch_size=16",
    # Slow enough in its learning that one or two workers' rounding does not grow: see docs/order.md.
    f"training.epochs={EPOCHS}", "training.learning_rate=0.0001", "cluster.checkpoint_every_steps=5",
    "cluster.collective_timeout=15",
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

    def wait_for(self, text: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, f"not in time: {text}\n{self.said.read_text()}"
            time.sleep(0.1)


@pytest.mark.timeout(400)
def test_a_run_goes_on_with_fewer_workers_when_a_node_leaves_and_with_more_when_it_returns(hosts, base):
    near, far = hosts
    run = LocalStorage(base / "runs" / "elastic")
    caches = {end: base / f"cache-{end}" for end in "abc"}
    with ray_cluster([*NODE, "--include-dashboard=false"], [], {"COVID_CT_CACHE": str(caches["a"])}, [near]) as cluster:
        cluster.start_worker(far, *NODE, env={"COVID_CT_CACHE": str(caches["b"])})
        driver = Driver(cluster, near, base, "elastic", "cluster.workers=2", "cluster.min_workers=1")
        try:
            driver.wait_for("epoch 2/")
            kill_tree(cluster.nodes.pop())
            driver.wait_for("with 1 of 2 worker(s)")
            reached = len(run.read("metrics.jsonl").splitlines())
            cluster.start_worker(far, *NODE, env={"COVID_CT_CACHE": str(caches["c"])})
            driver.wait_for("with 2 of 2 worker(s)")
            again = len(run.read("metrics.jsonl").splitlines())
            code = driver.process.wait(200)
        finally:
            kill_tree(driver.process)
        said = driver.said.read_text()
        assert code == 0, said
    print(said)
