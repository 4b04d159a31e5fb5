"""TensorFlow's import, without what it brings along for others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_UNUSED = ("pandas", "sklearn")
"""Keras imports them where they are installed, for data frames and for wrappers that nothing here uses."""


class _Without(MetaPathFinder):
    """Lets one thread find none of `_UNUSED`."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname in _UNUSED and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{fullname} is not imported with TensorFlow", name=fullname)
        return None


def import_tensorflow() -> None:
    """Imports TensorFlow, unless it is imported already, and leaves pandas and scikit-learn for when they are asked
    for: a quarter to a third of the processor time until a worker or a server can begin."""
    finder = _Without()
    # A new list each time: other threads may be going through the old one.
    sys.meta_path = [finder, *sys.meta_path]
    try:
        import tensorflow  # noqa: F401
    finally:
        sys.meta_path = [each for each in sys.meta_path if each is not finder]
