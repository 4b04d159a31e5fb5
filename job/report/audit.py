"""The audit's pages of a report: counts, findings, and the offending scans side by side."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from job.audit.audit import Audit
from job.audit.findings import Finding
from job.report import html

_SHOWN = ("contradicting-duplicates", "duplicates-across-parts", "duplicates")
"""Findings whose scans are shown as pictures."""

MOST_PAIRS = 6
"""Pairs shown of each finding."""

_NAMED = 200
"""Paths named of each finding; the JSON of `python -m job audit --json` has all."""


def offending(audit: Audit) -> list[str]:
    """The paths of the scans that the pages show as pictures."""
    return sorted({path for finding in audit.findings for paths in _pairs(finding) for path in paths})


def audit_section(audit: Audit, pictures: Mapping[str, bytes]) -> str:
    """The section's HTML. `pictures` has encoded thumbnails of the `offending` scans, by path."""
    parts = [
        html.paragraph(
            "What the data set gives away, and what is wrong with it. Each finding says what to do; a run's figures "
            "mean what they say only after the errors are dealt with."
        )
    ]
    if not audit.findings:
        parts.append(html.paragraph("No findings."))
    parts += [_finding(finding, pictures) for finding in audit.findings]
    parts.append(_counts(audit))
    if audit.canonical is not None:
        parts.append(_canonical(audit.canonical, audit.shortcut))
    return "".join(parts)


def audit_page(audit: Audit, pictures: Mapping[str, bytes]) -> str:
    """The audit alone, as one HTML document."""
    title = f"Audit of {audit.root}"
    body = html.section(f"Findings on the split {audit.split}", audit_section(audit, pictures), key="audit")
    return html.page(title, f"<h1>{escape(title)}</h1>{body}")


def _finding(finding: Finding, pictures: Mapping[str, bytes]) -> str:
    shown = "".join(_pair(paths, pictures) for paths in _pairs(finding))
    named, left = [], _NAMED
    for paths in finding.scans:
        if left <= 0:
            break
        named.append(", ".join(paths[:left]))
        left -= len(paths)
    more = f"<li>and more: {len(finding.scans)} in all</li>" if len(named) < len(finding.scans) else ""
    listed = "".join(f"<li>{escape(line)}</li>" for line in named) + more
    return (
        f'<div class="finding {finding.severity}"><h3><span class="badge">{finding.severity}</span> '
        f"{escape(_capital(finding.what))}</h3>{html.paragraph('What to do: ' + finding.do + '.')}"
        + (f'<div class="pictures">{shown}</div>' if shown else "")
        + (f"<details><summary>Which</summary><ul>{listed}</ul></details>" if finding.scans else "")
        + "</div>"
    )


def _pair(paths: tuple[str, ...], pictures: Mapping[str, bytes]) -> str:
    images = "".join(html.picture(pictures[path], f"The scan {path}") for path in paths if path in pictures)
    return html.figure(f'<div class="pair">{images}</div>', " = ".join(paths)) if images else ""


def _pairs(finding: Finding) -> tuple[tuple[str, ...], ...]:
    return finding.scans[:MOST_PAIRS] if finding.kind in _SHOWN else ()


def _counts(audit: Audit) -> str:
    names = list(audit.counts)
    rows = [["Scans", *(str(audit.counts[name]["scans"]) for name in names)]]
    rows.append(["Patients or papers", *(str(audit.counts[name]["groups"]) for name in names)])
    for kind in ("format", "mode"):
        found = [audit.properties[name][kind] for name in names]
        rows.append([_capital(kind), *(", ".join(f"{value} {count}" for value, count in one.items()) for one in found)])
    for kind in ("width", "height", "bytes"):
        found = [audit.properties[name][kind] for name in names]
        told = (f"{one['smallest']:,} to {one['largest']:,}, median {one['median']:,}" for one in found)
        rows.append([_capital(kind), *told])
    validated = audit.shortcut_cross_validated["auc"]
    baseline = html.paragraph(
        f"Cross-validated over patients or papers on all scans, a model that sees no pixel reaches AUC "
        f"{html.with_interval(validated)}."
    )
    return html.table("What the files are", ["", *names], rows) + baseline


def _canonical(found: Mapping[str, Any], shortcut: Mapping[str, Any]) -> str:
    text = html.paragraph(
        "The same forest on canonical scans, as the network sees them: each counts as the PNG that would hold it. How "
        "small an image compresses and whether it has bars depend on what it shows, too, so these cannot be at chance "
        "(0.5) where the classes differ."
    )
    files = (found["files"] or {}).get("test") or shortcut
    rows = []
    for name in ("together", *found["canonical"]["test"]["by_property"]):
        cells = [name.replace("_", " ")]
        for held in (files, found["canonical"]["test"]):
            one = held if name == "together" else held["by_property"].get(name)
            cells.append("" if one is None else html.with_interval(one["auc"]))
        rows.append(cells)
    return text + html.table("ROC AUC on the test part, with 95% intervals", ["Property", "Files", "Canonical"], rows)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
