"""Fixtures of the contract tests."""

from pathlib import Path

import pytest

from tests.conftest import SHARED


@pytest.fixture(scope="session")
def kuberay() -> Path:
    """KubeRay's custom resource definitions (release 1.7.0), where they lie beside the checkout."""
    folder = SHARED / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"KubeRay's definitions are not on this machine ({folder})")
    return folder
