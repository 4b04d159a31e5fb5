"""The audit of a data set: what it holds, what is wrong with it, and what its files give away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from job.audit import findings
from job.audit.duplicates import Pair, Read, find_duplicates
from job.audit.findings import SEVERITIES, Finding
from job.scan import PARTS, Scan
from job.shortcut import shortcut_baseline, shortcut_cross_validated


@dataclass(frozen=True)
class Audit:
    """What was found; `to_dict` is the JSON of `python -m job audit --json`."""

    root: str
    split: str
    """How the scans were split: published, grouped or images."""
    counts: dict[str, dict[str, int]]
    """Class folder to counts: scans, groups, train, val, test."""
    properties: dict[str, dict[str, dict[str, int]]]
    """Class folder to mode, format and side (smallest, median, largest) to counts or pixels."""
    findings: tuple[Finding, ...]
    """The worst first."""
    shortcut: dict[str, Any]
    """The shortcut baseline fitted on train and val, scored on test; as in `evaluation.json`."""
    shortcut_cross_validated: dict[str, Any]
    """The same over all scans, cross-validated over groups."""
    canonical: dict[str, Any] | None = None
    """What `job.audit.canonical.before_and_after` found; None where scans are not made canonical."""
    notices: tuple[str, ...] = ()
    """What was left out while the data set was read."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def audit(
    scans: Sequence[Scan],
    read: Read,
    *,
    root: str,
    split: str,
    notices: Sequence[str] = (),
    baseline: dict[str, Any] | None = None,
    canonical: dict[str, Any] | None = None,
    near: bool = True,
    by_property: bool = True,
    seed: int = 0,
) -> Audit:
    """Audits scans that are catalogued and split.

    Args:
        scans: all of them, of both classes.
        read: path below the data root to the encoded image.
        root: the data root as the user wrote it.
        split: published, grouped or images.
        notices: of the catalog.
        baseline: the shortcut baseline on this split, if the caller has it already.
        canonical: what canonical scans still tell, if the network sees such (`job.audit.canonical`).
        near: look for near duplicates too; else only for equal files, and no file is read.
        by_property: cross-validate each property alone too.
        seed: of the baseline and the bootstrap.
    """
    pairs = find_duplicates(scans, read if near else None)
    if baseline is None:
        fitted_on = [scan for scan in scans if scan.split != "test"]
        baseline = shortcut_baseline(fitted_on, [scan for scan in scans if scan.split == "test"], seed=seed)
    validated = shortcut_cross_validated(scans, by_property=by_property, seed=seed)
    return Audit(
        root,
        split,
        _counts(scans),
        _properties(scans),
        _sorted(_findings(scans, pairs, split, baseline, validated, canonical, notices)),
        baseline,
        validated,
        canonical,
        (*notices, *([] if near else ["near duplicates were not looked for"])),
    )


def _findings(
    scans: Sequence[Scan],
    pairs: Sequence[Pair],
    split: str,
    baseline: dict[str, Any],
    validated: dict[str, Any],
    canonical: dict[str, Any] | None,
    notices: Sequence[str],
) -> list[Finding]:
    bad = [notice.removeprefix("left out: ") for notice in notices if notice.startswith("left out: ")]
    left_out = [
        Finding("bad-images", "warning", f"{len(bad)} files are no scans: {'; '.join(bad)}", "mend or remove them")
    ]
    found = findings.shortcut(baseline, "on the test part")
    return [
        *findings.duplicates(pairs),
        *findings.spanning(scans, split),
        *(found or findings.shortcut(validated, "cross-validated over groups")),
        *(findings.canonical_shortcut(canonical) if canonical is not None else []),
        *findings.telling_properties(scans),
        *(left_out if bad else []),
        *findings.lying_suffixes(scans),
        *findings.mixed_groups(scans),
        *findings.small_scans(scans),
    ]


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _counts(scans: Sequence[Scan]) -> dict[str, dict[str, int]]:
    counts = {}
    for label, name in sorted(findings.label_names(scans).items(), reverse=True):
        held = [scan for scan in scans if scan.label == label]
        parts = {part: sum(scan.split == part for scan in held) for part in PARTS}
        counts[name] = {"scans": len(held), "groups": len({scan.group for scan in held}), **parts}
    return counts


def _properties(scans: Sequence[Scan]) -> dict[str, dict[str, dict[str, int]]]:
    properties = {}
    for label, name in sorted(findings.label_names(scans).items(), reverse=True):
        held = [scan for scan in scans if scan.label == label]
        properties[name] = {
            "format": dict(Counter(scan.format for scan in held).most_common()),
            "mode": dict(Counter(scan.mode for scan in held).most_common()),
            "width": _range([scan.width for scan in held]),
            "height": _range([scan.height for scan in held]),
            "bytes": _range([scan.size for scan in held]),
        }
    return properties


def _range(values: Sequence[int]) -> dict[str, int]:
    ordered = sorted(values)
    return {"smallest": ordered[0], "median": ordered[len(ordered) // 2], "largest": ordered[-1]}
