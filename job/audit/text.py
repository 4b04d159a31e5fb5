"""An audit as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from job.audit.audit import Audit

_EXAMPLES = 3
"""Examples shown of each finding."""


def as_text(audit: Audit, *, width: int = 100, every: bool = False) -> str:
    """The audit in plain text, wrapped at `width`; all examples with `every`."""
    return "\n".join(_lines(audit, width, every)) + "\n"


def _lines(audit: Audit, width: int, every: bool) -> Iterator[str]:
    yield f"{audit.root}, split {audit.split}"
    yield ""
    for name, counts in audit.counts.items():
        parts = ", ".join(f"{part} {counts[part]}" for part in ("train", "val", "test"))
        yield f"  {name}: {counts['scans']} scans of {counts['groups']} patients or papers ({parts})"
        kinds = audit.properties[name]
        for kind in ("format", "mode"):
            yield f"    {kind}: {', '.join(f'{value} {count}' for value, count in kinds[kind].items())}"
        sides = (f"{side} {kinds[side]['smallest']} to {kinds[side]['largest']}" for side in ("width", "height"))
        yield f"    {', '.join(sides)} pixels"
    yield ""
    yield "Without a pixel (a random forest on the files' properties), AUC with 95% interval:"
    yield f"  {'':18} {'test part':26} cross-validated over groups"
    validated = audit.shortcut_cross_validated
    for name in ("together", *audit.shortcut["by_property"]):
        one = audit.shortcut if name == "together" else audit.shortcut["by_property"][name]
        other = validated if name == "together" else validated["by_property"].get(name)
        second = _figure(other["auc"]) if other else ""
        yield f"  {name.replace('_', ' '):18} {_figure(one['auc']):26} {second}".rstrip()
    if audit.canonical is not None:
        yield from _canonical(audit.canonical)
    yield ""
    if not audit.findings:
        yield "No findings."
    for finding in audit.findings:
        yield from textwrap.wrap(f"{finding.severity.upper()}: {finding.what}", width, subsequent_indent="  ")
        yield from textwrap.wrap(f"-> {finding.do}", width, initial_indent="  ", subsequent_indent="     ")
        shown = finding.scans if every else finding.scans[:_EXAMPLES]
        for paths in shown:
            held = paths if every else paths[:_EXAMPLES]
            more = f" and {len(paths) - len(held)} more" if len(paths) > len(held) else ""
            yield "     " + (" = " if "duplicates" in finding.kind else ", ").join(held) + more
        if len(finding.scans) > len(shown):
            yield f"     and {len(finding.scans) - len(shown)} more (--all)"


def _canonical(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each property: what it tells of the files, and of canonical scans."""
    yield ""
    yield "The same, and what pixels tell of how they were made, before and after data.canonical: AUC with 95% interval"
    yield f"  {'':20} {'test part':35} cross-validated over groups"
    yield f"  {'':20} {'files':17} {'canonical':17} {'files':17} canonical"
    for name in ("together", *found["canonical"]["test"]["by_property"]):
        cells = []
        for part in ("test", "cross_validated"):
            for which in ("files", "canonical"):
                held = found[which][part]
                cells.append(_short((held if name == "together" else held["by_property"][name])["auc"]))
        yield f"  {name.replace('_', ' '):20} {' '.join(f'{cell:17}' for cell in cells)}".rstrip()


def _short(found: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return "n/a" if found["value"] is None else f"{found['value']:.2f}"
    return f"{found['value']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def _figure(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "n/a"
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
