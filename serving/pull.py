"""Versions come to a server: checked copies in a folder that TF Serving, or the local server, watches.

A version is downloaded under a hidden name, verified against its manifest, loaded and asked its warm-up requests by a
process of its own, and only then renamed to its number. Whatever dies on the way dies before that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job.errors import UserError
from job.files import TEMPORARY
from job.storage import DamagedBundle, LocalStorage, open_storage
from serving import registry
from serving.client import ClientError, RestClient
from serving.errors import Code
from serving.model_config import labels_in, model_config

_CANDIDATE = f"{TEMPORARY}candidate-"
_A_DAY = 86_400.0  # longer than any download or check


@dataclass(frozen=True)
class Plan:
    """What to pull, and for whom."""

    source: str
    """A folder or s3:// prefix that holds the versions `1/`, `2/`, ..."""
    folder: Path
    """Where the server looks for them; named as the model, unless `name` says otherwise."""
    keep: int = 2
    """So many of the newest stay, and whatever else is labelled or served."""
    server: str | None = None
    """The REST address of the server that watches the folder."""
    config: Path | None = None
    """TF Serving's model config file, to be written."""
    name: str = ""
    """The model's name in the server; "" takes the folder's."""


class Puller:
    """Brings a folder up to its source, round by round. `say` takes a line for a person, `check` raises `UserError`
    for a version that must not be served."""

    def __init__(self, plan: Plan, check: Callable[[Path], None], say: Callable[[str], None]) -> None:
        self._plan, self._check, self._say = plan, check, say
        self._source = open_storage(plan.source)
        self._folder = plan.folder.expanduser().absolute()
        self._here = LocalStorage(self._folder)
        self._name = plan.name or self._folder.name
        self._refused: dict[int, str] = {}
        self._said: set[str] = set()

    def round(self) -> None:
        """Fetches what is new, moves the labels, removes what is old. Raises `UserError`, after having done what
        could be done, if the source cannot be read or the folder cannot be written."""
        failure: UserError | None = None
        labels: dict[str, int] | None = None
        self._make_folder()
        try:
            self._source.check()
            labels = registry.read_labels(self._source)
            self._fetch_wanted(labels)
        except UserError as error:
            failure = error
        there = registry.versions(self._here)
        if labels is not None:
            self._carry_labels(labels, there)
        served = self._served()
        configured = self._configure(there, served)
        self._prune(there, served, configured)
        if failure:
            raise failure
        if not there:
            raise UserError(f"{self._plan.source}: holds no version that can be served; publish one")

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be made: {error.strerror}") from error
        self._here.sweep(older_than=_A_DAY)

    def _fetch_wanted(self, labels: dict[str, int]) -> None:
        """Fetches the labelled versions, and the newest ones until enough of them are good."""
        offered = registry.versions(self._source)
        good = 0
        for number in reversed(offered):
            if good < self._plan.keep or number in labels.values():
                good += self._is_here(number) or self._fetch(number)
        for label, number in labels.items():
            if number not in offered:
                self._say_once(f"label {label} names version {number}, which is not in {self._plan.source}")

    def _is_here(self, number: int) -> bool:
        return number in registry.versions(self._here)

    def _fetch(self, number: int) -> bool:
        """Whether the version is in the folder now; one that is not good is said and left out."""
        candidate = self._folder / f"{_CANDIDATE}{number}"
        try:
            digest = self._source.manifest(str(number)).digest()
        except FileNotFoundError:
            return False  # it has just been removed from the source
        except DamagedBundle as error:
            self._say_once(f"version {number} is refused: {error}")
            return False
        if self._refused.get(number) == digest:
            return False
        try:
            self._discard_if_damaged(candidate)
            self._source.read_bundle(str(number), candidate)
            refusal = self._fails(candidate)
        except DamagedBundle as error:
            refusal = str(error)
        if refusal:
            self._refused[number] = digest
            self._say(f"version {number} is refused: {refusal}")
            self._here.delete(candidate.name)
            return False
        try:
            candidate.rename(self._folder / str(number))
        except OSError as error:
            raise UserError(f"{self._folder / str(number)}: cannot be made: {error.strerror}") from error
        self._say(f"version {number} has been pulled and checked")
        return True

    def _fails(self, candidate: Path) -> str:
        """Why the version must not be served; "" if it may be."""
        try:
            self._check(candidate)
        except UserError as error:
            return str(error)
        return ""

    def _discard_if_damaged(self, candidate: Path) -> None:
        """A candidate that an earlier process left is used if it is whole."""
        try:
            self._here.read_bundle(candidate.name)
        except (FileNotFoundError, DamagedBundle):
            self._here.delete(candidate.name)

    def _carry_labels(self, labels: dict[str, int], there: list[int]) -> None:
        """Labels follow the source once their version is here; until then they stay where they are. (The local
        server itself moves a label only when it has loaded the version.)"""
        before = registry.read_labels(self._here)
        after = {}
        for label, number in labels.items():
            if number in there:
                after[label] = number
            elif before.get(label) in there:
                after[label] = before[label]
        if after != before:
            registry.write_labels(self._here, after)
            self._say(f"labels: {_shown(after)}")

    def _served(self) -> set[int] | None:
        """The versions that the server has in memory; None where that is not known."""
        if self._plan.server is None:
            return None
        try:
            with RestClient(self._plan.server, name=self._name, timeout=5) as client:
                states = client.status()
        except ClientError as error:
            # The server is there and does not know the model yet.
            return set() if error.code is Code.NOT_FOUND else None
        return {number for number, state in states.items() if state == "AVAILABLE"}

    def _configure(self, there: list[int], served: set[int] | None) -> set[int]:
        """Writes TF Serving's config file if it has to change; the versions that it names.

        Loaded are the newest version and every labelled one, as by the local server. A label moves in two steps:
        first its new version is loaded beside the old one, and when the server says that it is, the label follows.
        """
        path = self._plan.config
        if path is None or not there:
            return set()
        beside = LocalStorage(path.expanduser().absolute().parent)
        try:
            old = beside.read(path.name)
        except FileNotFoundError:
            old = b""
        before, after = labels_in(old), {}
        wanted = registry.read_labels(self._here)
        for label, number in wanted.items():
            if number in (served or ()):
                after[label] = number
            elif before.get(label) in there:
                after[label] = before[label]
        named = {there[-1], *wanted.values(), *after.values()} & set(there)
        new = model_config(self._name, str(self._folder), named, after)
        if new != old:
            beside.write(path.name, new)
            self._say(f"{path}: versions {', '.join(map(str, sorted(named)))}; labels: {_shown(after)}")
        return named

    def _prune(self, there: list[int], served: set[int] | None, configured: set[int]) -> None:
        """Removes what is neither new, labelled, configured nor served. Where a server that should tell does not
        answer, nothing is removed."""
        if self._plan.server is not None and served is None:
            return
        needed = {*there[-self._plan.keep :], *registry.read_labels(self._here).values(), *configured, *(served or ())}
        for number in there:
            if number not in needed:
                self._here.delete(str(number))
                self._say(f"version {number} has been removed")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def _shown(labels: dict[str, int]) -> str:
    return ", ".join(f"{label} = {number}" for label, number in sorted(labels.items())) or "none"
