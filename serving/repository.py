"""Which versions of a model are served: watches a folder, loads what is good, keeps answering while it changes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from job.errors import UserError
from job.storage import MANIFEST, LocalStorage
from serving import registry
from serving.errors import Code, ServingError, invalid
from serving.model import Model, load_version
from serving.version import VersionInfo, version_number

_MOST_ENDED = 100  # versions that were served or refused and still appear in the status


class State(Enum):
    """Where a version stands, in the words (and numbers) of `ModelVersionStatus.State`."""

    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Status(NamedTuple):
    """One version's state, and what went wrong with it."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


class Loaded:
    """A version in memory. It stays there until it is retired and its last lease has ended."""

    def __init__(self, number: int, model: Model, info: VersionInfo) -> None:
        self.number = number
        self.model = model
        self.info = info
        self._lock = threading.Lock()
        self._leases = 0
        self._when_idle: Callable[[], None] | None = None

    def lease(self) -> bool:
        """Keeps it in memory until `release`; False if it is on its way out."""
        with self._lock:
            if self._when_idle:
                return False
            self._leases += 1
            return True

    def release(self) -> None:
        """Ends a lease."""
        with self._lock:
            self._leases -= 1
            done = self._when_idle if not self._leases else None
        if done:
            done()

    def retire(self, when_closed: Callable[[], None]) -> None:
        """No more leases; closed as soon as there are none."""

        def close() -> None:
            self.model.close()
            when_closed()

        with self._lock:
            self._when_idle = close
            idle = not self._leases
        if idle:
            close()


class Repository:
    """The versions under `<root>/<name>/`.

    Served are the newest version that is good and every version that a label names. A version becomes available
    when it is complete, loaded, and has passed its warm-up check, and only then does one that it replaces go. While
    the folder holds no good version at all, the ones that are loaded stay. `poll` is for one thread; the other
    methods are for any.
    """

    def __init__(self, root: Path, name: str, log: Callable[[str], None]) -> None:
        self.name = name
        self._folder = root / name
        self._storage = LocalStorage(self._folder)
        self._log = log
        self._lock = threading.Lock()
        self._loaded: dict[int, Loaded] = {}
        self._labels: dict[str, int] = {}
        self._statuses: dict[int, Status] = {}
        self._refused: dict[int, tuple[int, ...]] = {}  # tried again only when its manifest is another file
        self._said: set[str] = set()
        self._unloaded = False  # a version, since the last poll

    def poll(self) -> None:
        """Looks at the folder once, and loads and unloads what that calls for."""
        if self._unloaded:
            self._unloaded = False
            # A graph is a knot of references that only the collector undoes; by itself it would come much too late.
            gc.collect()
        there = registry.versions(self._storage)[::-1]
        self._mention_incomplete(there)
        wanted = set()
        for number in there:
            if self._load(number):
                wanted.add(number)
                break
        labels = self._read_labels()
        for label, number in labels.items():
            if number in self._loaded or (number in there and self._load(number)):
                wanted.add(number)
            else:
                self._say_once(f"label {label} stays where it is: version {number} is not loaded")
                if label in self._labels:
                    wanted.add(self._labels[label])
        if not wanted:
            return
        with self._lock:
            self._labels = {
                label: number if number in self._loaded else self._labels[label]
                for label, number in labels.items()
                if number in self._loaded or label in self._labels
            }
            going = [self._loaded.pop(number) for number in set(self._loaded) - wanted]
        for each in going:
            self._retire(each)

    def _load(self, number: int) -> bool:
        """Whether the version is loaded, after trying to if it was not refused before."""
        if number in self._loaded:
            return True
        folder = self._folder / str(number)
        try:
            found = (folder / MANIFEST).stat()
            changed = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        except OSError:
            return False  # it has just been removed
        if self._refused.get(number) == changed:
            return False
        self._set(Status(number, State.LOADING))
        try:
            model, info = load_version(folder)
        except UserError as error:
            self._refused[number] = changed
            self._set(Status(number, State.END, Code.FAILED_PRECONDITION, str(error)))
            self._log(f"version {number} is not served: {error}")
            return False
        with self._lock:
            self._loaded[number] = Loaded(number, model, info)
        self._set(Status(number, State.AVAILABLE))
        self._log(f"version {number} is available")
        return True

    def _retire(self, loaded: Loaded) -> None:
        self._set(Status(loaded.number, State.UNLOADING))

        def closed() -> None:
            self._set(Status(loaded.number, State.END))
            self._unloaded = True
            self._log(f"version {loaded.number} is unloaded")

        loaded.retire(closed)

    def _set(self, status: Status) -> None:
        with self._lock:
            self._statuses[status.version] = status
            ended = [number for number in sorted(self._statuses) if self._statuses[number].state is State.END]
            for number in ended[:-_MOST_ENDED]:
                del self._statuses[number]

    def _read_labels(self) -> dict[str, int]:
        try:
            return registry.read_labels(self._storage)
        except UserError as error:
            self._say_once(f"labels stay as they are: {error}")
            return dict(self._labels)

    def _mention_incomplete(self, complete: list[int]) -> None:
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            number = version_number(path.name)
            if number and number not in complete and path.is_dir():
                self._say_once(f"version {number} is not complete: it has no {MANIFEST}")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._log(line)

    @contextmanager
    def version(self, number: int | None = None, label: str | None = None, name: str | None = None) -> Iterator[Loaded]:
        """The version of that number or label, or the latest; it stays loaded within the `with`.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT, in TF Serving's words.
        """
        while True:
            loaded = self._find(number, label, self.name if name is None else name)
            if loaded.lease():
                break
        try:
            yield loaded
        finally:
            loaded.release()

    def _find(self, number: int | None, label: str | None, name: str) -> Loaded:
        if not name:
            raise invalid("ModelSpec has no name specified.")
        with self._lock:
            if label is not None:
                number = self._labels.get(label) if name == self.name else None
                if number is None:
                    raise invalid(f"Unrecognized servable version label: {label}")
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            if name == self.name and self._loaded:
                found = self._loaded.get(max(self._loaded) if number is None else number)
                if found:
                    return found
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {asked}")

    def statuses(self, name: str, number: int | None = None) -> list[Status]:
        """The state of one version or of all, the newest first. Raises `ServingError` NOT_FOUND."""
        with self._lock:
            found = sorted(self._statuses.values(), reverse=True) if name == self.name else []
        if number is not None:
            found = [each for each in found if each.version == number]
            if not found:
                raise ServingError(Code.NOT_FOUND, f"Could not find version {number} of model {name}")
        if not found:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return found

    def available(self) -> dict[int, VersionInfo]:
        """What each served version says of itself, the newest first."""
        with self._lock:
            return {number: self._loaded[number].info for number in sorted(self._loaded, reverse=True)}

    def labels(self) -> dict[str, int]:
        """The labels that are in force."""
        with self._lock:
            return dict(self._labels)

    def close(self) -> None:
        """Unloads everything. No lease may be left."""
        with self._lock:
            going, self._loaded = list(self._loaded.values()), {}
        for each in going:
            each.retire(lambda: None)
