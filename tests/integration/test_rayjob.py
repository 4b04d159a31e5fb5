"""The RayJob of the s3 overlay, run for real: its entrypoint on a Ray cluster with its parameters and environment, with
scans in an S3 server; and the retry that KubeRay makes when a cluster is lost: a new cluster, the same entrypoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.manifests import find, pods, quantity, render
from tests.ray_cluster import RAY, ROOT, RayCluster, ray_cluster
from tests.s3_server import SECRET, S3Server

# Small enough for two processors; everything else is what the overlay says.
ECONOMY = {"data": {"per_class": None}, "training": {"epochs": 8, "batch_size": 8}}
CLUSTER = {"workers": 1, "cpus_per_worker": 1, "checkpoint_every_steps": 1}


@dataclass(frozen=True)
class Job:
    """What a cluster makes of the manifest, with the paths of mounts below a folder of the test's."""

    entrypoint: str
    runtime_env: str
    environment: dict[str, str]
    head: list[str]
    worker: list[str]
    source: str
    name: str


def ray_start(params: dict[str, str], **instead: str) -> list[str]:
    return [f"--{name}={value}" for name, value in {**params, **instead}.items()]


@pytest.fixture(scope="module")
def job(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("rayjob")
    objects = render("s3")
    ray_job, settings = find(objects, "RayJob"), find(objects, "ConfigMap", "covid-ct-settings")["data"]
    wanted = yaml.safe_load(settings["settings.yaml"])
    for section, values in ECONOMY.items():
        wanted.setdefault(section, {}).update(values)
    wanted["cluster"] = CLUSTER
    (folder / "settings.yaml").write_text(yaml.safe_dump(wanted))
    environment = find(objects, "ConfigMap", "covid-ct-environment")["data"]
    cluster = ray_job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    cpus = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    assert quantity(cpus) >= CLUSTER["cpus_per_worker"]
    scans = draw_scans(folder)
    upload(s3, scans, wanted["data"]["root"])
    entrypoint = ray_job["spec"]["entrypoint"]
    assert "/etc/covid-ct/" in entrypoint
    return Job(
        entrypoint=entrypoint.replace("/etc/covid-ct", str(folder)),
        runtime_env=json.dumps(yaml.safe_load(ray_job["spec"]["runtimeEnvYAML"])),
        # The Secret's keys come with the server's environment, and its address instead of the example's.
        environment={**environment, **s3.environment(), "COVID_CT_CACHE": str(folder / "cache")},
        head=ray_start(cluster["headGroupSpec"]["rayStartParams"]),
        worker=ray_start(group["rayStartParams"], **{"num-cpus": "1"}),
        source=environment["MODEL_SOURCE"],
        name=ray_job["metadata"]["name"],
    )


def draw_scans(folder: Path) -> Path:
    """What the local overlay's init container makes, by its own command, run twice as a retried pod would."""
    (head,) = [pod for pod in pods(render("local")) if pod.owner == "head"]
    (sample,) = [container for container in head.containers if container["name"] == "sample"]
    command = [
        word.replace("/storage", str(folder)).replace("--per-class 40", "--per-class 20") for word in sample["args"]
    ]
    for _ in range(2):
        environment = {**os.environ, "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    scans = folder / "scans"
    assert len(list(scans.rglob("*.*"))) == 40
    return scans


def upload(s3: S3Server, scans: Path, root: str) -> None:
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    client = s3.client()
    client.create_bucket(Bucket=bucket)
    for path in scans.rglob("*.*"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(scans).as_posix()}", Body=path.read_bytes())


def keys(s3: S3Server, url: str) -> list[str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def submit(cluster: RayCluster, job: Job, submission: str) -> None:
    """As KubeRay's submitter does."""
    command = [str(RAY), "job", "submit", "--address", cluster.dashboard, "--no-wait"]
    command += ["--runtime-env-json", job.runtime_env, "--submission-id", submission, "--", *job.entrypoint.split()]
    subprocess.run(command, env=cluster.environment, check=True, capture_output=True, timeout=300)


def follow(cluster: RayCluster, submission: str) -> tuple[str, str]:
    """How the job ended, as KubeRay asks the dashboard (following the log says 0 of a failed job too), and its log."""
    arguments = ["--address", cluster.dashboard]
    command = [str(RAY), "job", "logs", *arguments, "--follow", submission]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=600)
    command = [str(RAY), "job", "status", *arguments, submission]
    status = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=300)
    (ended,) = re.findall(r"Job '\S+' (succeeded|failed|was stopped)", status.stdout + status.stderr)
    return ended, done.stdout + done.stderr


def start(job: Job) -> Any:
    return ray_cluster(job.head, [job.worker], job.environment)


@pytest.mark.timeout(900)
def test_a_lost_cluster_costs_a_retry_that_goes_on_and_a_finished_run_is_left_alone(job: Job, s3: S3Server) -> None:
    runs = f"{job.source.rpartition('/models/')[0]}/runs/{job.name}"
    with start(job) as cluster:
        submit(cluster, job, "first")
        deadline = time.monotonic() + 300
        while len(epochs(s3, runs)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.kill()
    known = epochs(s3, runs)
    assert 2 <= len(known) < ECONOMY["training"]["epochs"], "it was to be stopped on its way"
    assert versions(s3, job) == set()

    with start(job) as cluster:
        submit(cluster, job, "second")
        ended, log = follow(cluster, "second")
        assert ended == "succeeded", log
        assert "as before" in log  # the catalog of the first attempt
        assert "resumed" in log
        # With its time and speed: the first epoch was taken over, not trained again.
        assert epochs(s3, runs)[0] == known[0]
        assert len(epochs(s3, runs)) == ECONOMY["training"]["epochs"]
        assert versions(s3, job) == {"1"}

        submit(cluster, job, "third")
        ended, again = follow(cluster, "third")
        assert ended == "succeeded", again
        assert "is finished already" in again
        assert versions(s3, job) == {"1"}

        # Neither the keys of the storage nor Ray's token are in a log or in anything that the run left behind.
        secrets = [SECRET.encode(), cluster.environment["RAY_AUTH_TOKEN"].encode()]
        left = {"the job's log": (log + again).encode()}
        left |= {str(path): path.read_bytes() for path in cluster.folder.rglob("*") if path.is_file()}
        left |= {key: content(s3, key) for key in keys(s3, runs) + keys(s3, job.source)}
    assert len(left) > 50
    assert [name for name, data in left.items() if any(secret in data for secret in secrets)] == []
    assert not list(Path.cwd().glob("s3:*")), "a folder was made of an address"


def epochs(s3: S3Server, runs: str) -> list[bytes]:
    """The lines of the run's metrics.jsonl."""
    prefix = runs.removeprefix("s3://covid-ct/")
    return content(s3, f"{prefix}/metrics.jsonl").splitlines() if f"{prefix}/metrics.jsonl" in keys(s3, runs) else []


def content(s3: S3Server, key: str) -> bytes:
    """An object of the overlay's bucket."""
    return bytes(s3.client().get_object(Bucket="covid-ct", Key=key)["Body"].read())


def versions(s3: S3Server, job: Job) -> set[str]:
    prefix = job.source.removeprefix("s3://").partition("/")[2]
    return {key.removeprefix(f"{prefix}/").split("/")[0] for key in keys(s3, job.source)}
