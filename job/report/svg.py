"""Charts as inline SVG: lines with bands, and intervals on a scale. Colours come from the page's style sheet.

Series differ by dash as well as by colour, so that a print in gray can be read. Each chart is one image to a screen
reader, with a title and a description.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

_WIDTH, _HEIGHT = 380, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 40
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line of a chart: its name in the legend, points, and the optional upper and lower edge of its band."""

    name: str
    points: Points
    low: Points = ()
    high: Points = ()


@dataclass(frozen=True)
class Axis:
    """What an axis shows and from where to where."""

    label: str
    low: float = 0.0
    high: float = 1.0
    whole: bool = False
    """Ticks at whole numbers only."""
    ticks: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.high > self.low:
            object.__setattr__(self, "high", self.low + 1)
        object.__setattr__(self, "ticks", _ticks(self.low, self.high, whole=self.whole))


def line_chart(title: str, description: str, x: Axis, y: Axis, series: Sequence[Series], *, chance: Points = ()) -> str:
    """Lines over common axes. `chance` is the line of what knows nothing."""
    frame = _Frame(x, y)
    parts = [frame.axes()]
    if chance:
        parts.append(f'<polyline class="chance" points="{frame.path(chance)}"/>')
    for number, one in enumerate(series):
        if one.low:
            around = [*one.high, *reversed(one.low)]
            parts.append(f'<polygon class="band s{number % 5}" points="{frame.path(around)}"/>')
    for number, one in enumerate(series):
        dash = f' stroke-dasharray="{_DASHES[number % 5]}"' if _DASHES[number % 5] else ""
        parts.append(f'<polyline class="line s{number % 5}"{dash} points="{frame.path(one.points)}"/>')
        if len(one.points) == 1:
            ((px, py),) = one.points
            parts.append(f'<circle class="dot s{number % 5}" cx="{frame.x(px):.1f}" cy="{frame.y(py):.1f}" r="3"/>')
    return _image(title, description, parts, _WIDTH, _HEIGHT) + _legend([one.name for one in series])


def dot_chart(
    title: str, description: str, x: Axis, y: Axis, dots: Sequence[tuple[float, float, float | None, float | None]]
) -> str:
    """Points (x, y) with the interval (low, high) of y, beside the diagonal on which they would be perfect."""
    frame = _Frame(x, y)
    parts = [frame.axes(), f'<polyline class="chance" points="{frame.path([(0, 0), (1, 1)])}"/>']
    for px, py, low, high in dots:
        if low is not None and high is not None:
            at = f'x1="{frame.x(px):.1f}" x2="{frame.x(px):.1f}"'
            parts.append(f'<line class="whisker s0" {at} y1="{frame.y(low):.1f}" y2="{frame.y(high):.1f}"/>')
        parts.append(f'<circle class="dot s0" cx="{frame.x(px):.1f}" cy="{frame.y(py):.1f}" r="4"/>')
    return _image(title, description, parts, _WIDTH, _HEIGHT)


def interval_bar(value: float, low: float | None, high: float | None, *, mark: float | None = None) -> str:
    """A small scale from 0 to 1 with a value, its interval, and a mark (such as chance); decoration beside figures."""
    width, height = 160, 14
    parts = [f'<line class="axis" x1="2" x2="{width - 2}" y1="7" y2="7"/>']

    def at(share: float) -> float:
        return 2 + min(max(share, 0), 1) * (width - 4)

    if mark is not None:
        parts.append(f'<line class="chance" x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="1" y2="13"/>')
    if low is not None and high is not None:
        parts.append(f'<line class="span s0" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="7" y2="7"/>')
    parts.append(f'<circle class="dot s0" cx="{at(value):.1f}" cy="7" r="4"/>')
    return f'<svg class="bar" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'


class _Frame:
    """Where values lie within a chart."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self._x, self._y = x, y

    def x(self, value: float) -> float:
        share = (value - self._x.low) / (self._x.high - self._x.low)
        return _LEFT + min(max(share, 0), 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._y.low) / (self._y.high - self._y.low)
        return _HEIGHT - _BOTTOM - min(max(share, 0), 1) * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        # Equal neighbours add nothing to a line, and a curve of many scans has many.
        places = (f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        return " ".join(place for place, _ in itertools.groupby(places))

    def axes(self) -> str:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        parts = []
        for tick in self._y.ticks:
            at = self.y(tick)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
        for tick in self._x.ticks:
            at = self.x(tick)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>')
        middle = (_LEFT + right) / 2
        parts.append(
            f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(self._x.label)}</text>'
            f'<text transform="translate(12 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
            f"{escape(self._y.label)}</text>"
        )
        return f'<g class="axes">{"".join(parts)}</g>'


def _image(title: str, description: str, parts: Iterable[str], width: int, height: int) -> str:
    label = escape(f"{title}. {description}", quote=True)
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    items = []
    for number, name in enumerate(names):
        dash = f' stroke-dasharray="{_DASHES[number % 5]}"' if _DASHES[number % 5] else ""
        line = f'<line class="line s{number % 5}"{dash} x1="0" x2="28" y1="5" y2="5"/>'
        items.append(f'<li><svg viewBox="0 0 28 10" aria-hidden="true">{line}</svg>{escape(name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _ticks(low: float, high: float, *, whole: bool) -> tuple[float, ...]:
    """Three to seven round numbers within the range."""
    least = (high - low) / 6
    scale = 10.0 ** math.floor(math.log10(least))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= least * (1 - 1e-9))
    if whole:
        step = max(1.0, float(round(step)))
    first = math.ceil(low / step - 1e-9)
    count = math.floor((high - first * step) / step + 1e-9) + 1
    return tuple((first + number) * step for number in range(count))


def _number(value: float) -> str:
    return f"{value:.6g}"
