"""Which scans are fitted on (train), chosen on (val) and scored (test): seeded, by group, and stable.

A group's place is its rank under a seeded hash, and the parts are cut from that order per class, so that a scan that
is added later moves at most the groups beside a cut.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from job.errors import UserError
from job.scan import PARTS
from job.storage import Storage


class Member(NamedTuple):
    """What splitting needs to know of a scan."""

    path: str
    label: int
    group: str


def rank(seed: int, name: str) -> bytes:
    """A place in an order that is random, the same everywhere, and not moved by what else there is."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def by_group(members: Sequence[Member], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Path to part, no group in two parts, each class near the `fractions` (of train, val, test) of its scans.

    Raises:
        UserError: a class has fewer groups than there are parts.
    """
    labels: dict[str, set[int]] = defaultdict(set)
    counts: dict[str, int] = defaultdict(int)
    for member in members:
        labels[member.group].add(member.label)
        counts[member.group] += 1
    part_of: dict[str, str] = {}
    # A group with scans of both classes (a patient before and after) is a stratum of its own.
    for stratum in sorted({frozenset(found) for found in labels.values()}, key=sorted):
        groups = sorted((group for group in labels if labels[group] == stratum), key=lambda group: rank(seed, group))
        for group, part in zip(groups, _cut([counts[group] for group in groups], fractions), strict=True):
            part_of[group] = part
    return {member.path: part_of[member.group] for member in members}


def by_image(members: Sequence[Member], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Path to part by plain chance per class: slices of one patient may fall on both sides."""
    return by_group([Member(member.path, member.label, member.path) for member in members], fractions, seed)


def published(storage: Storage, classes: Iterable[str], known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Path to part from lists `{train,val,test}<CLASS>.txt` at the root of `storage`, one file name a line.

    `known` has each class's paths below the data root. Raises `UserError` for a list that is missing, names a file
    that is not there, or names one twice.
    """
    part_of: dict[str, str] = {}
    for name in classes:
        paths = {PurePosixPath(path).name: path for path in known[name]}
        for part in PARTS:
            file = f"{part}{name}.txt"
            try:
                text = storage.read(file).decode("utf-8-sig")
            except FileNotFoundError as error:
                raise UserError(
                    f"{storage.url}/{file}: no such list; data.split=published needs {{train,val,test}}<CLASS>.txt "
                    "in data.lists, or use data.split=grouped"
                ) from error
            for line in filter(None, map(str.strip, text.splitlines())):
                if line not in paths:
                    raise UserError(f"{storage.url}/{file}: names {line}, which is not in {name}/")
                if part_of.setdefault(paths[line], part) != part:
                    raise UserError(f"{storage.url}/{file}: names {line}, which is in {part_of[paths[line]]} already")
    return part_of


def _cut(counts: Sequence[int], fractions: Sequence[float]) -> list[str]:
    """The part of each group in order: cuts as near to the fractions as whole groups allow, no part empty if there
    are groups enough; with fewer than three groups all are train."""
    if len(counts) < len(PARTS):
        return ["train"] * len(counts)
    total, running, ends = sum(counts), 0, [0]
    for count in counts:
        running += count
        ends.append(running)
    first = _nearest(ends, fractions[0] * total)
    second = _nearest(ends, (fractions[0] + fractions[1]) * total)
    first = min(max(first, 1), len(counts) - 2)
    second = min(max(second, first + 1), len(counts) - 1)
    return ["train"] * first + ["val"] * (second - first) + ["test"] * (len(counts) - second)


def _nearest(values: Sequence[int], goal: float) -> int:
    return min(range(len(values)), key=lambda index: abs(values[index] - goal))
