"""`ray job submit` as the README has it: streamed progress, the job's exit status, and little sent."""

import os
import subprocess
from pathlib import Path

import pytest

from job import sample
from job.storage import LocalStorage
from tests.ray_cluster import RAY, ROOT, RayCluster, ray_cluster

SMALL = ["model.filters=[4]", "model.pool_size=20", "model.dense=8", "data.per_class=null", "training.epochs=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("submit")
    storage = LocalStorage(folder / "scans")
    for drawing in sample.draw(12, seed=0):
        storage.write(drawing.path, drawing.data)
    return folder


@pytest.fixture(scope="module")
def cluster(folder):
    with ray_cluster(["--num-cpus=2"], [], {"COVID_CT_CACHE": str(folder / "cache")}) as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What is committed or would be: a user's checkout, with data and an environment that must not be sent."""
    checkout = tmp_path_factory.mktemp("checkout")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in files.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((ROOT / name).read_bytes())
    for ignored in ("data/scan.png", "runs/first/report.html", "models/covid_ct/1/saved_model.pb", ".venv/lib/big.so"):
        (checkout / ignored).parent.mkdir(parents=True)
        (checkout / ignored).write_bytes(os.urandom(1 << 20))
    return checkout


def submit(cluster: RayCluster, checkout: Path, *job: str) -> subprocess.CompletedProcess[str]:
    command = [str(RAY), "job", "submit", "--working-dir", ".", "--", "python", "-m", "job", "train", *job]
    environment = {**cluster.environment, "RAY_API_SERVER_ADDRESS": cluster.dashboard}
    environment.pop("PYTHONPATH", None)  # the code is the one that was sent
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def sets(folder: Path, *more: str) -> list[str]:
    overrides = [f"data.root={folder}/scans", f"runs={folder}/runs", f"export.root={folder}/models", *SMALL, *more]
    return [word for override in overrides for word in ("--set", override)]


@pytest.mark.timeout(300)
def test_a_submitted_job_streams_its_progress_and_ends_with_0(cluster, folder, checkout):
    done = submit(cluster, checkout, "--run", "submitted", *sets(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("catalog: 24 scans", "joined the Ray cluster", "epoch 1/2 ", "epoch 2/2 ", "exported "):
        assert line in done.stdout + done.stderr
    assert (folder / "models" / "covid_ct" / "1" / "saved_model.pb").is_file()


def test_what_was_sent_is_the_code_and_under_5_mib(cluster, folder, checkout):
    (sent,) = Path(cluster.folder).glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/job")
    files = [path for path in sent.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5 * 1024 * 1024
    names = {path.relative_to(sent.parent).parts[0] for path in files}
    assert {"job", "serving"} <= names
    assert not names & {"data", "runs", "models", ".venv", ".git"}


@pytest.mark.timeout(300)
def test_a_job_that_fails_ends_with_another_status_and_its_line(cluster, folder, checkout):
    done = submit(cluster, checkout, "--run", "nowhere", *sets(folder, f"data.root={folder}/nowhere"))
    assert done.returncode != 0
    assert "nowhere: no such folder" in done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_more_workers_than_the_cluster_has_cpus_is_said_at_once(cluster, folder, checkout):
    done = submit(cluster, checkout, "--run", "many", *sets(folder, "cluster.workers=3"))
    assert done.returncode != 0
    assert "need 3, the cluster" in done.stdout + done.stderr
    assert "set cluster.workers=2" in done.stdout + done.stderr
