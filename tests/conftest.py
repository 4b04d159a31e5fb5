"""Fixtures that every suite may use."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from serving_support import Server

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
    from serving_support import NAME, export

    root = tmp_path_factory.mktemp("models")
    assert export(root) == 1
    (root / NAME / "labels.json").write_text('{"stable": 1}')
    return root


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator["Server"]:
    """A server of `models`, over REST and gRPC."""
    from serving_support import Server

    with Server(models) as running:
        yield running


@pytest.fixture(scope="session")
def scans() -> dict[str, bytes]:
    """Small drawn scans as encoded files, by name: L, RGB, RGBA and palette PNG, L and RGB JPEG."""
    from serving.warmup import drawn_scans

    return drawn_scans()
