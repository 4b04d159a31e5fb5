"""What a data set holds: one `Scan` per image, with label, group and part of the split, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from job import groups, splits
from job.audit.duplicates import contradicting, find_duplicates
from job.errors import UserError
from job.files import Entry, ahead
from job.images import BadImage, check_size, inspect
from job.scan import PARTS, Scan
from job.seen import Seen, recall, remember
from job.settings import Data
from job.storage import Storage, absolute, open_storage


@dataclass(frozen=True)
class Catalog:
    """The scans of a run, sorted by path, and what a person should know of how they were chosen."""

    scans: tuple[Scan, ...]
    notices: tuple[str, ...]
    """A line each for whatever was left out or is fewer than was asked for."""

    def part(self, name: str) -> tuple[Scan, ...]:
        """The scans of train, val or test."""
        return tuple(scan for scan in self.scans if scan.split == name)


def build(data: Data, seed: int) -> Catalog:
    """Reads and checks every chosen image of `data.root` (in parallel, a few at a time in memory), except those that
    an earlier catalog on this machine saw and that have not changed since.

    Raises:
        UserError: a folder is missing or empty, an image is bad (unless `data.on_bad_image` is skip), or the split
            cannot be made.
    """
    storage = open_storage(data.root)
    classes = {data.negative: 0, data.positive: 1}
    notices: list[str] = []
    entries = {name: _images(storage, name, notices) for name in classes}
    part_of = _published(data, storage, entries, notices) if data.split == "published" else {}
    patients = None if data.groups is None else groups.from_files(data.groups)
    found: list[Scan] = []
    known, seen = recall(absolute(data.root)), dict[Entry, Seen]()
    for name, label in classes.items():
        candidates = [entry for entry in entries[name] if data.split != "published" or entry.path in part_of]
        wanted = len(candidates) if data.per_class is None else data.per_class
        if data.per_class is not None and len(candidates) < wanted:
            notices.append(f"{name} has {len(candidates)} scans, fewer than data.per_class {wanted}: all are taken")
        candidates.sort(key=lambda entry: splits.rank(seed, entry.path))
        for entry, scan in islice(_good(storage, candidates, data, known, notices), wanted):
            seen[entry] = scan
            group = groups.group_of(entry.path, patients)
            header = (scan.width, scan.height, scan.mode, scan.format)
            found.append(Scan(entry.path, entry.size, scan.sha256, label, group, "", *header))
    remember(absolute(data.root), {**known, **seen})
    if data.on_contradiction == "skip":
        found = _without_contradictions(found, storage, notices)
    if data.split != "published":
        split = splits.by_group if data.split == "grouped" else splits.by_image
        part_of = split([splits.Member(scan.path, scan.label, scan.group) for scan in found], data.fractions, seed)
    scans = tuple(replace(scan, split=part_of[scan.path]) for scan in sorted(found, key=lambda scan: scan.path))
    for name, label in classes.items():
        for part in PARTS:
            if not any(scan.split == part and scan.label == label for scan in scans):
                raise UserError(_no_part(data, name, part, scans, label))
    return Catalog(scans, tuple(notices))


def _images(storage: Storage, name: str, notices: list[str]) -> list[Entry]:
    """The files of a class folder. Hidden ones (`.DS_Store`) are left alone."""
    entries = list(storage.entries(name))
    shown = [entry for entry in entries if not entry.path.rpartition("/")[2].startswith(".")]
    if len(shown) < len(entries):
        notices.append(f"{name}: {len(entries) - len(shown)} hidden files are left out")
    if not shown:
        there = sorted({entry.path.partition("/")[0] for entry in storage.entries() if "/" in entry.path})
        hint = f"the folders there are {', '.join(there)}" if there else "there are no folders with files"
        raise UserError(
            f"{storage.url}/{name}: no images; data.root needs a folder with images for each class, {hint} "
            "(names: data.positive, data.negative)"
        )
    return shown


def _published(data: Data, storage: Storage, entries: dict[str, list[Entry]], notices: list[str]) -> dict[str, str]:
    lists = open_storage(data.lists if data.lists is not None else f"{storage.url.rstrip('/')}/split")
    part_of = splits.published(lists, entries, {name: [e.path for e in found] for name, found in entries.items()})
    for name, found in entries.items():
        unlisted = sum(entry.path not in part_of for entry in found)
        if unlisted:
            notices.append(f"{name}: {unlisted} scans are in no split list and are left out")
    return part_of


def _good(
    storage: Storage, entries: Sequence[Entry], data: Data, known: Mapping[Entry, Seen], notices: list[str]
) -> Iterator[tuple[Entry, Seen]]:
    """The entries that are scans, in order; a bad one is an error or, by setting, a notice."""

    def look(entry: Entry) -> Seen | BadImage:
        if entry in known:
            return known[entry]
        try:
            check_size(f"{storage.url}/{entry.path}", entry.size)
            content = storage.read(entry.path, entry)
            return Seen.of(content, inspect(f"{storage.url}/{entry.path}", content))
        except BadImage as bad:
            return bad

    # A little ahead only: what is not needed (data.per_class) is not read.
    for entry, seen in ahead(look, entries, storage.threads):
        if isinstance(seen, Seen):
            yield entry, seen
        elif data.on_bad_image == "fail":
            raise BadImage(f"{seen} (or leave such images out with data.on_bad_image=skip)")
        else:
            notices.append(f"left out: {seen}")


def _without_contradictions(scans: Sequence[Scan], storage: Storage, notices: list[str]) -> list[Scan]:
    """The scans without those that are the same picture with both labels: one of them is wrong, nobody knows which."""
    out: set[str] = set()
    for held in contradicting(find_duplicates(scans, storage.read)):
        notices.append(f"left out, the same picture in both classes: {' = '.join(scan.path for scan in held)}")
        out.update(scan.path for scan in held)
    return [scan for scan in scans if scan.path not in out]


def _no_part(data: Data, name: str, part: str, scans: Sequence[Scan], label: int) -> str:
    of_class = [scan for scan in scans if scan.label == label]
    if data.split == "published":
        return f"data.lists: no scan of {name} in the part {part}"
    unit = {scan.group for scan in of_class} if data.split == "grouped" else {scan.path for scan in of_class}
    kind = "groups (patients or papers)" if data.split == "grouped" else "scans"
    instead = "; use data.split=images or add scans" if data.split == "grouped" and len(of_class) > 2 else "; add scans"
    return f"data.split={data.split}: {name} has {len(unit)} {kind}, too few for train, val and test{instead}"
