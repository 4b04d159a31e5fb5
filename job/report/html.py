"""Pieces of a page: escaped text, tables, figures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from job.metrics import Figure
from job.report.style import STYLE

BARS = "From 0 to 1"
"""The heading of a column of interval bars."""

MOST_COLUMNS = 3
"""That a phone has room for."""


def page(title: str, body: str) -> str:
    """A whole HTML document that loads nothing from elsewhere."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # What a data set's file names may hold is escaped; this keeps it from mattering if it were not.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def section(title: str, *parts: str, key: str) -> str:
    """A part of the page under a heading; `key` is what links name it by."""
    return f'<section aria-labelledby="{key}">\n<h2 id="{key}">{escape(title)}</h2>\n{"".join(parts)}\n</section>'


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: bool = True,
    raw: bool = False,
    wide: bool = False,
) -> str:
    """A table whose first column names the row. Cells are escaped unless `raw`.

    On a phone, one of more than three columns (or that is said to be `wide`) has its cells below each other, each with
    its column's heading; a table that is too wide all the same scrolls by itself.
    """
    shown = (lambda cell: cell) if raw else escape
    # A narrow screen has no room for the bars, which say nothing that the figures do not.
    kinds = [' class="bars"' if cell == BARS else "" for cell in head]
    stacked = wide or sum(cell != BARS for cell in head) > MOST_COLUMNS
    # What is laid out as no table any more is still read out as one.
    role = _role if stacked else lambda _: ""
    headings = "".join(
        f'<th scope="col"{kind}{role("columnheader")}>{escape(cell)}</th>'
        for kind, cell in zip(kinds, head, strict=True)
    )
    names = [f' data-head="{escape(cell, quote=True)}"' if stacked else "" for cell in head[1:]]
    lines = "".join(
        f'<tr{role("row")}><th scope="row"{role("rowheader")}>{shown(first)}</th>'
        + "".join(
            f"<td{role('cell')}{kind}{name if cell else ''}>{shown(cell)}</td>"
            for kind, name, cell in zip(kinds[1:], names, rest, strict=True)
        )
        + "</tr>"
        for first, *rest in rows
    )
    styles = " ".join(name for name, wanted in (("numbers", numbers), ("stacked", stacked)) if wanted)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}">'
        f"<table{_class(styles)}{role('table')}><caption>{escape(caption)}</caption>"
        f"<thead{role('rowgroup')}><tr{role('row')}>{headings}</tr></thead>"
        f"<tbody{role('rowgroup')}>{lines}</tbody></table></div>"
    )


def figure(content: str, caption: str, *, first: bool = False) -> str:
    """A chart or picture (HTML) with its caption (text) below it, or above it with `first`."""
    told = f"<figcaption>{escape(caption)}</figcaption>"
    return f"<figure>{told}{content}</figure>" if first else f"<figure>{content}{told}</figure>"


def grid(parts: Iterable[str], kind: str = "charts") -> str:
    """Figures side by side, as many as the width allows."""
    return f'<div class="{kind}">{"".join(parts)}</div>'


def picture(data: bytes, alt: str) -> str:
    """An image within the page, from PNG or JPEG bytes."""
    kind = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img src="data:{kind};base64,{encoded}" alt="{escape(alt, quote=True)}">'


def definition(values: Mapping[str, Any]) -> str:
    """Nested plain values as a list of names and values."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(plain(value))}</dd>" for name, value in flat(values))
    return f'<dl class="values">{items}</dl>'


def number(value: float | None, digits: int = 3) -> str:
    """A figure for reading; what is not defined says so."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def interval(found: Figure | Mapping[str, Any]) -> str:
    """The two ends of a figure's 95% interval, for reading."""
    if found["low"] is None or found["high"] is None:
        return "n/a"
    return f"{found['low']:.3f} to {found['high']:.3f}"


def with_interval(found: Figure | Mapping[str, Any]) -> str:
    """A figure with its interval, for reading: `0.712 (0.634 to 0.787)`."""
    return number(found["value"]) if found["low"] is None else f"{number(found['value'])} ({interval(found)})"


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested values one by one, under names such as `training.seed`."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def plain(value: Any) -> str:
    """A setting's value as the YAML would show it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return (", ".join(map(plain, value)) or "none") if isinstance(value, list | tuple) else str(value)


def _role(name: str) -> str:
    return f' role="{name}"'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
