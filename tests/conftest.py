"""Fixtures that every suite may use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def covid_ct() -> Path:
    """The real data set (746 scans), where it lies beside the checkout."""
    folder = SHARED / "covid-ct"
    if not folder.is_dir():
        pytest.skip(f"the real scans are not on this machine ({folder})")
    return folder
