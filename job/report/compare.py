"""Runs side by side, on one page: figures, paired differences where they scored the same scans, curves, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean, stdev
from typing import Any

from job.curves import roc
from job.metrics import NAMES, Figure, differences
from job.report import html
from job.report.run import Run
from job.report.svg import Axis, Series, interval_bar, line_chart
from job.verdict import DISCLAIMER, TITLES


def compare_html(runs: Sequence[Run]) -> str:
    """The page for two runs or more; the first is what the others are compared with."""
    names = ", ".join(run.name for run in runs)
    sections = [
        html.section("Figures", _figures(runs), key="figures"),
        html.section("Difference from the first", _differences(runs), key="differences"),
        html.section("Curves", _curves(runs), key="curves"),
        html.section("Settings that differ", _settings(runs), key="settings"),
        html.section("Cost", _cost(runs), key="cost"),
    ]
    head = f"<h1>Runs {escape(names)}</h1>{html.paragraph(DISCLAIMER, 'soft')}"
    return html.page(f"Runs {names}", head + "\n".join(sections))


def spread(runs: Sequence[Run], name: str) -> tuple[float, float] | None:
    """The mean and the sample standard deviation of a figure over runs; None with fewer than two values."""
    values = [value for run in runs if (value := run.evaluation["metrics"][name]["value"]) is not None]
    return (mean(values), stdev(values)) if len(values) > 1 else None


def setting_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings (`training.seed`) that are not the same in all runs, with each run's value."""
    flat = [dict(html.flat(run.config)) for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    held = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in held.items() if any(value != values[0] for value in values)}


def _figures(runs: Sequence[Run]) -> str:
    rows = []
    for name in NAMES:
        told = spread(runs, name)
        cells = [html.with_interval(run.evaluation["metrics"][name]) for run in runs]
        rows.append([TITLES[name], f"{told[0]:.3f} ± {told[1]:.3f}" if told else "n/a", *cells])
    for name in ("auc", "accuracy"):
        shortcut = [html.with_interval(run.evaluation["shortcut"][name]) for run in runs]
        rows.append([f"{TITLES[name]} without a pixel (shortcut)", "", *shortcut])
    text = html.paragraph(
        "The intervals (95%, bootstrap over patients or papers) say how far a figure might be off for other patients; "
        "mean ± standard deviation over the runs says how far it moves with what differs between them."
    )
    head = ["Figure", "Mean ± deviation", *(run.name for run in runs)]
    bars = [_bar(run) for run in runs]
    return text + html.table("Figures with 95% intervals", head, rows, numbers=len(runs) <= 3) + html.grid(bars)


def _bar(run: Run) -> str:
    auc: Figure = run.evaluation["metrics"]["auc"]
    if auc["value"] is None:
        return ""
    bar = interval_bar(auc["value"], auc["low"], auc["high"], mark=0.5)
    return html.figure(bar, f"{run.name}: AUC {html.with_interval(auc)}, from 0 to 1 (dashed: chance)")


def _differences(runs: Sequence[Run]) -> str:
    first, rows, other_scans = runs[0], [], []
    scored = first.scored()
    paths = [scan.path for scan, _ in scored]
    for run in runs[1:]:
        pairs = run.scored()
        if [scan.path for scan, _ in pairs] != paths or [s.label for s, _ in pairs] != [s.label for s, _ in scored]:
            other_scans.append(run.name)
            continue
        found = differences(
            [scan.label for scan, _ in scored],
            [p for _, p in scored],
            [p for _, p in pairs],
            [scan.group for scan, _ in scored],
            first.evaluation["threshold"],
        )
        rows.append([run.name, *(_signed(found[name]) for name in ("auc", "average_precision", "accuracy", "brier"))])
    parts = []
    if rows:
        head = ["Run", *(TITLES[name] for name in ("auc", "average_precision", "accuracy", "brier"))]
        parts.append(
            html.paragraph(
                f"Each run minus {first.name}, on the same scans, with the 95% interval of a paired bootstrap: an "
                "interval that holds 0 is no evidence of a difference. It does not cover the luck of a seed: for that, "
                "train each with several (--seeds)."
            )
        )
        parts.append(html.table(f"Differences from {first.name}", head, rows))
    if other_scans:
        parts.append(
            html.paragraph(f"Scored on other scans than {first.name}, so not comparable: {', '.join(other_scans)}.")
        )
    return "".join(parts)


def _curves(runs: Sequence[Run]) -> str:
    charts = []
    for key, title in (("val_loss", "Validation loss"), ("val_accuracy", "Validation accuracy"), ("loss", "Loss")):
        lines = [
            Series(run.name, [(float(m["epoch"]), float(m[key])) for m in run.metrics if m.get(key) is not None])
            for run in runs
        ]
        lines = [line for line in lines if line.points]
        if lines:
            epochs = [x for line in lines for x, _ in line.points]
            values = [y for line in lines for _, y in line.points]
            top = 1.0 if key == "val_accuracy" else max(values) * 1.05
            x, y = Axis("Epoch", min(epochs), max(epochs), whole=True), Axis(title, 0, top)
            told = "; ".join(f"{line.name} ends at {line.points[-1][1]:.3f}" for line in lines) + "."
            charts.append(html.figure(line_chart(f"{title} per epoch", told, x, y, lines), f"{title}: {told}"))
    ranked = []
    for run in runs:
        scored = run.scored()
        curve = roc([s.label for s, _ in scored], [p for _, p in scored], [s.group for s, _ in scored], resamples=2)
        if curve is not None:
            ranked.append(Series(run.name, list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))))
    if ranked:
        told = "; ".join(f"{run.name} AUC {html.number(run.evaluation['metrics']['auc']['value'])}" for run in runs)
        axes = Axis("1 - specificity"), Axis("Sensitivity")
        chart = line_chart("ROC curves", told, *axes, ranked, chance=[(0, 0), (1, 1)])
        charts.append(html.figure(chart, f"ROC curves: {told} (dashed: chance)."))
    return html.grid(charts)


def _settings(runs: Sequence[Run]) -> str:
    found = setting_differences(runs)
    if not found:
        return html.paragraph("None.")
    rows = [[key, *(html.plain(value) for value in values)] for key, values in found.items()]
    head = ["Setting", *(run.name for run in runs)]
    return html.table("Settings that are not the same", head, rows, wide=True)


def _cost(runs: Sequence[Run]) -> str:
    phases = list(dict.fromkeys(name for run in runs for name in _seconds(run)))
    rows = []
    for phase in phases:
        rows.append([phase.replace("_", " "), *(_shown(_seconds(run).get(phase)) for run in runs)])
    speeds = [[m["images_per_second"] for m in run.metrics if m.get("images_per_second") is not None] for run in runs]
    rows.append(["scans a second", *(_shown(sorted(s)[len(s) // 2] if s else None) for s in speeds)])
    return html.table("Wall seconds per phase, and training speed (median)", ["", *(r.name for r in runs)], rows)


def _seconds(run: Run) -> Mapping[str, float]:
    seconds = run.summary.get("seconds", {})
    return seconds if isinstance(seconds, Mapping) else {}


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}"


def _signed(found: Figure) -> str:
    if found["value"] is None:
        return "n/a"
    if found["low"] is None or found["high"] is None:
        return f"{found['value']:+.3f}"
    return f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
