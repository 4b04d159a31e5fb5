"""Fixtures of the integration tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.storage import LocalStorage
from tests.follower import FakeServer
from tests.pictures import drawn_scans


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory):
    before = os.environ.get("COVID_CT_CACHE")
    os.environ["COVID_CT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["COVID_CT_CACHE"]
    else:
        os.environ["COVID_CT_CACHE"] = before


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return drawn_scans(tmp_path_factory.mktemp("scans"), 33, 0)


@pytest.fixture
def run(tmp_path):
    return LocalStorage(tmp_path / "run")


@pytest.fixture(params=["folder", "s3"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where versions are published to and pulled from."""
    return str(tmp_path / "source") if request.param == "folder" else request.getfixturevalue("s3_root")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A server that says which versions it has loaded, and no more."""
    running = FakeServer()
    yield running
    running.close()
