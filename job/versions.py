"""What a run was made with: memory, versions of the software, and the commit of this project's code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
from pathlib import Path


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def versions() -> dict[str, str]:
    """Versions by name: python and the packages that decide a result."""
    packages = ("tensorflow", "keras", "ray", "numpy", "pillow", "tensorflow-serving-api")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # The CPU image has TensorFlow as the package tensorflow-cpu.
        return importlib.metadata.version(f"{name}-cpu")


def git_commit() -> str | None:
    """`COVID_CT_COMMIT` (an image is built with it), else the commit of the checkout this code is in, else None."""
    named = os.environ.get("COVID_CT_COMMIT")
    if named:
        return named
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None
