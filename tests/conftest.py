"""Fixtures that every suite may use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.s3_server import BUCKET, S3Server, s3_server
from tests.serving_support import NAME, Server, export

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def covid_ct() -> Path:
    """The real data set (746 scans), where it lies beside the checkout."""
    folder = SHARED / "covid-ct"
    if not folder.is_dir():
        pytest.skip(f"the real scans are not on this machine ({folder})")
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one exported version of a tiny model, labelled stable."""
    root = tmp_path_factory.mktemp("models")
    assert export(root) == 1
    (root / NAME / "labels.json").write_text('{"stable": 1}')
    return root


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[Server]:
    """A server of `models`, over REST and gRPC."""
    with Server(models) as running:
        yield running


@pytest.fixture(scope="session")
def scans() -> dict[str, bytes]:
    """Small drawn scans as encoded files, by name: L, RGB, RGBA and palette PNG, L and RGB JPEG."""
    from serving.warmup import drawn_scans

    return drawn_scans()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; see `S3Server.environment` for how to point boto3 at it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_root(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix of a real bucket, `s3://...`, with boto3 configured for it in this process."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions of different models, to be copied from."""
    root = tmp_path_factory.mktemp("exported")
    return [root / NAME / str(export(root, seed)) for seed in range(3)]


@pytest.fixture(scope="session")
def repeat() -> Callable[[str, int], int]:
    """How often to repeat: the number given, or what the environment variable of that name says."""
    return lambda name, usual: int(os.environ.get(name, usual))
