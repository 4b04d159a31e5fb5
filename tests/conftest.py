"""Fixtures that every suite may use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving_support import Server

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
    from tests.serving_support import NAME, export

    root = tmp_path_factory.mktemp("models")
    assert export(root) == 1
    (root / NAME / "labels.json").write_text('{"stable": 1}')
    return root


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator["Server"]:
    """A server of `models`, over REST and gRPC."""
    from tests.serving_support import Server

    with Server(models) as running:
        yield running


@pytest.fixture(scope="session")
def scans() -> dict[str, bytes]:
    """Small drawn scans as encoded files, by name: L, RGB, RGBA and palette PNG, L and RGB JPEG."""
    from serving.warmup import drawn_scans

    return drawn_scans()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions of different models, to be copied from."""
    from tests.serving_support import NAME, export

    root = tmp_path_factory.mktemp("exported")
    return [root / NAME / str(export(root, seed)) for seed in range(3)]


@pytest.fixture(scope="session")
def repeat() -> Callable[[str, int], int]:
    """How often to repeat: the number given, or what the environment variable of that name says."""
    return lambda name, usual: int(os.environ.get(name, usual))
