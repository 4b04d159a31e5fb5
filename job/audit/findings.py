"""What the audit finds, each with how bad it is and what to do; functions from scans to findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from job.audit.duplicates import Pair
from job.groups import from_name
from job.limits import SIDE
from job.metrics import Figure
from job.scan import PARTS, Scan

Severity = Literal["error", "warning", "note"]
"""error: figures on this split mean less than they say; warning: a network may learn the wrong thing; note: good to
know."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_TELLING = 10
"""A property that fewer scans have is no finding."""
_SUFFIXES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif")}


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    kind: str
    """A short name that does not change: `contradicting-duplicates`."""
    severity: Severity
    what: str
    """In one line."""
    do: str
    """The setting that deals with it, or what else to do, in one line."""
    scans: tuple[tuple[str, ...], ...] = ()
    """The paths it is about; those that belong together, together."""


def label_names(scans: Iterable[Scan]) -> dict[int, str]:
    """The class folder of each label."""
    return {scan.label: PurePosixPath(scan.path).parts[0] for scan in scans}


def duplicates(pairs: Sequence[Pair]) -> list[Finding]:
    """Same pictures: across classes, across parts of the split, and elsewhere."""
    across = [pair for pair in pairs if pair.one.label != pair.other.label]
    leaking = [pair for pair in pairs if pair not in across and pair.one.split != pair.other.split]
    rest = [pair for pair in pairs if pair not in across and pair not in leaking]
    found = []
    if across:
        found.append(
            Finding(
                "contradicting-duplicates",
                "error",
                f"{_pairs(across)} in both classes: one label of each must be wrong",
                "set data.on_contradiction=skip to leave both out, or remove the wrong one",
                _paths(across),
            )
        )
    if leaking:
        found.append(
            Finding(
                "duplicates-across-parts",
                "error",
                f"{_pairs(leaking)} in different parts of the split: scored on what was trained on",
                "remove one of each, or give both one group (data.groups) and set data.split=grouped",
                _paths(leaking),
            )
        )
    if rest:
        found.append(
            Finding(
                "duplicates",
                "note",
                f"{_pairs(rest)} within one class and part of the split: they count twice",
                "remove one of each if they should count once",
                _paths(rest),
            )
        )
    return found


def spanning(scans: Sequence[Scan], split: str) -> list[Finding]:
    """Patients, and source papers by file name, with scans in several parts of the split."""
    found: list[Finding] = []
    instead = "set data.split=grouped" if split != "grouped" else "give them one patient in data.groups"
    for kind, name, group_of in (
        ("groups-across-parts", "patients or papers", lambda scan: scan.group),
        ("papers-across-parts", "source papers (by file name)", lambda scan: from_name(scan.path)),
    ):
        groups = _by(scans, group_of)
        wide = {group: held for group, held in groups.items() if len({scan.split for scan in held}) > 1}
        if wide and not any(finding.scans == _members(wide) for finding in found):
            parts = sorted({scan.split for held in wide.values() for scan in held}, key=PARTS.index)
            found.append(
                Finding(
                    kind,
                    "error" if kind == "groups-across-parts" else "warning",
                    f"{len(wide)} {name} with scans in several parts of the split ({', '.join(parts)})",
                    f"{instead}; without data.groups it keeps a paper on one side",
                    _members(wide),
                )
            )
    return found


def mixed_groups(scans: Sequence[Scan]) -> list[Finding]:
    """Patients with scans of both classes."""
    mixed = {g: held for g, held in _by(scans, lambda s: s.group).items() if len({s.label for s in held}) > 1}
    if not mixed:
        return []
    return [
        Finding(
            "groups-in-both-classes",
            "note",
            f"{len(mixed)} patients or papers have scans of both classes",
            "nothing, if that is so (before and after an illness); else mend data.groups",
            _members(mixed),
        )
    ]


def lying_suffixes(scans: Sequence[Scan]) -> list[Finding]:
    """Files whose suffix names another format than their content."""
    wrong = [s for s in scans if PurePosixPath(s.path).suffix.lower() not in _SUFFIXES.get(s.format, ())]
    if not wrong:
        return []
    per_class: dict[str, int] = defaultdict(int)
    names = label_names(scans)
    for scan in wrong:
        per_class[f"{names[scan.label]}: {PurePosixPath(scan.path).suffix or 'no suffix'} is {scan.format}"] += 1
    told = ", ".join(f"{name} ({count})" for name, count in sorted(per_class.items()))
    return [
        Finding(
            "lying-suffixes",
            "note",
            f"{len(wrong)} files whose suffix lies; {told}",
            "nothing: this job reads the content; rename them for programs that do not",
            tuple((scan.path,) for scan in wrong),
        )
    ]


def telling_properties(scans: Sequence[Scan]) -> list[Finding]:
    """Modes, formats and suffixes that occur in one class only."""
    names = label_names(scans)
    kinds: dict[str, tuple[Callable[[Scan], str], str]] = {
        "mode": (lambda scan: scan.mode, "set data.canonical=true: every scan becomes gray, whatever its mode"),
        "format": (lambda scan: scan.format, "set data.canonical=true: it evens out what compression leaves behind"),
        "suffix": (
            lambda scan: PurePosixPath(scan.path).suffix.lower() or "none",
            "nothing: the network sees no name, but the suffix shows that the classes were collected apart",
        ),
    }
    found = []
    for kind, (of, do) in kinds.items():
        for value, held in sorted(_by(scans, of).items()):
            labels = {scan.label for scan in held}
            if len(labels) == 1 and len(held) >= _TELLING and len(held) < len(scans):
                (label,) = labels
                of_class = sum(scan.label == label for scan in scans)
                if len(names) > 1:
                    found.append(
                        Finding(
                            f"telling-{kind}",
                            "note" if kind == "suffix" else "warning",
                            f"{kind} {value} gives the class away: {len(held)} scans, all of {names[label]} "
                            f"({len(held) / of_class:.0%} of it)",
                            do,
                        )
                    )
    return found


def shortcut(found: Mapping[str, Any], where: str) -> list[Finding]:
    """What the baseline reaches that sees no pixel, if that is more than chance."""
    auc: Figure = found["auc"]
    if auc["value"] is None or auc["low"] is None or auc["low"] <= 0.5:
        return []
    return [
        Finding(
            "shortcut",
            "error" if auc["low"] > 0.7 else "warning",
            f"a model that sees no pixel reaches AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}) "
            f"{where}{_alone(found)}",
            "set data.canonical=true, and trust no pixel model's figure on this split that does not pass it",
        )
    ]


def canonical_shortcut(found: Mapping[str, Any]) -> list[Finding]:
    """What the baseline still reaches on canonical scans, if that is more than chance."""
    auc: Figure = found["canonical"]["test"]["auc"]
    if auc["value"] is None or auc["low"] is None or auc["low"] <= 0.5:
        return []
    return [
        Finding(
            "canonical-shortcut",
            "warning",
            f"from how small canonical scans compress, bars at their edges and their colour alone, a model reaches AUC "
            f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}) on the test part"
            f"{_alone(found['canonical']['test'])}",
            "no setting takes this away, it depends on what the scans show: a pixel model's AUC should pass it",
        )
    ]


def small_scans(scans: Sequence[Scan]) -> list[Finding]:
    """Scans that must be enlarged for the network."""
    small = [scan for scan in scans if min(scan.width, scan.height) < SIDE]
    if not small:
        return []
    names = label_names(scans)
    told = ", ".join(f"{sum(s.label == label for s in small)} of {name}" for label, name in sorted(names.items()))
    return [
        Finding(
            "small-scans",
            "note",
            f"{len(small)} scans have a side under {SIDE} pixels and are enlarged ({told})",
            "nothing, or replace them by larger ones; if one class has most of them, its blur tells the class",
            tuple((scan.path,) for scan in small),
        )
    ]


def _alone(found: Mapping[str, Any]) -> str:
    """The properties that do better than chance by themselves, the best first."""
    alone = [
        f"{name.replace('_', ' ')} {one['auc']['value']:.2f}"
        for name, one in sorted(found["by_property"].items(), key=lambda item: -(item[1]["auc"]["value"] or 0))
        if one["auc"]["low"] is not None and one["auc"]["low"] > 0.5
    ]
    return f"; alone: {', '.join(alone)}" if alone else ""


def _by(scans: Iterable[Scan], key: Callable[[Scan], str]) -> dict[str, list[Scan]]:
    found: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        found[key(scan)].append(scan)
    return dict(found)


def _members(groups: Mapping[str, Sequence[Scan]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(scan.path for scan in groups[name]) for name in sorted(groups))


def _paths(pairs: Sequence[Pair]) -> tuple[tuple[str, ...], ...]:
    return tuple((pair.one.path, pair.other.path) for pair in pairs)


def _pairs(pairs: Sequence[Pair]) -> str:
    exact = sum(pair.exact for pair in pairs)
    near = len(pairs) - exact
    kinds = [f"{exact} exact" if exact else "", f"{near} near" if near else ""]
    return f"{' and '.join(filter(None, kinds))} duplicate{'s' if len(pairs) > 1 else ''}"
