"""The warm-up check of a version, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from job.errors import UserError

_SECONDS = 600  # to import TensorFlow, load, and run a handful of scans, on a machine that is busy


class Checker:
    """Checks versions one after the other.

    Each check is a process: the memory that TensorFlow takes is given back, and a SavedModel that crashes it has
    failed its check and nothing else.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, folder: Path) -> None:
        """Raises `UserError` unless the version in `folder` passes `serving.model.check_version`."""
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving", "check", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        try:
            _, said = self._process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{folder}: its warm-up check was not done after {_SECONDS} s") from error
        finally:
            self.stop()
        if self._process.returncode:
            last = (said.strip().splitlines() or [f"the check ended with {self._process.returncode}"])[-1]
            raise UserError(last.partition("serving check: ")[2] or last)

    def stop(self) -> None:
        """Ends the check that is under way, if one is."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
