"""The report of one run: what was trained on what, how good it is, and how far the figures can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

from job.curves import GRID, Curve, precision_recall, reliability, roc
from job.metrics import NAMES
from job.report import html
from job.report.run import Run
from job.report.svg import Axis, Points, Series, dot_chart, interval_bar, line_chart
from job.scan import PARTS, Scan
from job.verdict import CANONICAL_NOTE, DISCLAIMER, TITLES, verdict

MISTAKES = 12
"""The worst mistakes that a report shows."""


class Picture(NamedTuple):
    """A scan as encoded PNG or JPEG, and the Grad-CAM map laid over it, if there is one."""

    scan: bytes
    overlay: bytes | None = None


class Explained(NamedTuple):
    """Pictures by path, and the mean rank correlation of their Grad-CAM maps with those of random weights."""

    pictures: Mapping[str, Picture]
    similarity: float | None


def worst_mistakes(run: Run, count: int = MISTAKES) -> list[tuple[Scan, float]]:
    """The scans called wrongly at the threshold of the evaluation, the surest first, with their probabilities."""
    threshold = run.evaluation["threshold"]
    wrong = [(scan, p) for scan, p in run.scored() if (p >= threshold) != (scan.label == 1)]
    return sorted(wrong, key=lambda pair: (-abs(pair[1] - threshold), pair[0].path))[:count]


def report_html(run: Run, explained: Explained | None = None, *, augmentation: str = "", audit: str = "") -> str:
    """The report as one HTML document.

    Args:
        run: its files.
        explained: pictures of the `worst_mistakes`; those that are missing are named without one.
        augmentation: the section of the contact sheet as HTML (see `job.report.contact`), or nothing.
        audit: the audit's section as HTML (see `job.report.audit`), or nothing.
    """
    sections = [
        ("figures", "Figures", _figures(run)),
        ("data", "What was trained on what", _data(run)),
        *([("augmentation", "Augmentation", augmentation)] if augmentation else []),
        ("learning", "Learning curves", _learning(run)),
        ("curves", "Ranking and calibration", _curves(run)),
        ("formats", "By file format", _formats(run)),
        ("shortcut", "The shortcut baseline", _shortcut(run)),
        ("mistakes", "The worst mistakes", _mistakes(run, explained or Explained({}, None))),
        *([("audit", "Audit of the data set", audit)] if audit else []),
        ("how", "How it was run", _how(run)),
    ]
    links = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title, _ in sections)
    said = verdict(run.evaluation)
    head = (
        f"<h1>Run {escape(run.name)}</h1>"
        f"{html.paragraph(said.text, 'verdict warn' if said.warns else 'verdict')}"
        f"{html.paragraph(DISCLAIMER, 'soft')}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
    )
    return html.page(f"Run {run.name}", head + "\n".join(html.section(t, body, key=key) for key, t, body in sections))


def _figures(run: Run) -> str:
    evaluation = run.evaluation
    chosen = evaluation.get("chosen_threshold")
    shortcut = evaluation["shortcut"]
    head = ["Figure", f"At threshold {evaluation['threshold']:.3g}", html.BARS, "Without a pixel (shortcut)"]
    if chosen:
        head.append(f"At threshold {chosen['value']:.3g}")
    rows = []
    for name in NAMES:
        found = evaluation["metrics"][name]
        mark = 0.5 if name == "auc" else None
        bar = "" if found["value"] is None else interval_bar(found["value"], found["low"], found["high"], mark=mark)
        row = [escape(TITLES[name]), html.with_interval(found), bar]
        row.append(html.with_interval(shortcut[name]) if name in shortcut else "")
        rows.append([*row, html.with_interval(chosen["metrics"][name])] if chosen else row)
    part = f"{evaluation['n']} scans of {evaluation['groups']} patients or papers in the part {evaluation['part']}"
    text = html.paragraph(
        f"On {part} of the split {evaluation['split']}, which training never saw. The intervals come from a bootstrap "
        "over whole patients or papers, because scans of one patient are not independent."
    )
    if chosen:
        text += html.paragraph(
            f"The threshold {chosen['value']:.3g} is the highest that reaches a sensitivity of "
            f"{chosen['wanted_sensitivity']:g} on the validation scans; the scored scans had no say in it."
        )
    return text + html.table("Figures with 95% intervals", head, rows, raw=True)


def _data(run: Run) -> str:
    negative, positive = run.class_names()
    rows = []
    for part in PARTS:
        inside = [scan for scan in run.manifest if scan.split == part]
        counts = [sum(scan.label == label for scan in inside) for label in (1, 0)]
        rows.append([part, *map(str, counts), str(len(inside)), str(len({scan.group for scan in inside}))])
    rows.append(
        [
            "all",
            *(str(sum(scan.label == label for scan in run.manifest)) for label in (1, 0)),
            str(len(run.manifest)),
            str(len({scan.group for scan in run.manifest})),
        ]
    )
    data = run.config.get("data", {})
    notices = "".join(f"<li>{escape(notice)}</li>" for notice in run.summary.get("notices", ()))
    text = html.paragraph(
        f"Scans below {data.get('root', 'the data root')}, split {run.evaluation['split']}. The model gives the "
        f"probability of {positive}. Training fits on train, thresholds are chosen on val, figures come from "
        f"{run.evaluation['part']}."
    )
    text += html.table("Scans per part", ["Part", positive, negative, "Scans", "Patients or papers"], rows)
    return text + (f"<h3>Left out, or fewer than asked for</h3><ul>{notices}</ul>" if notices else "")


def _learning(run: Run) -> str:
    if not run.metrics:
        return html.paragraph("This run has no epochs.")
    epochs = [float(line["epoch"]) for line in run.metrics]
    x = Axis("Epoch", min(epochs), max(epochs), whole=True)
    charts = []
    for name, title in (("loss", "Loss"), ("accuracy", "Accuracy")):
        series = []
        for key, called in ((name, "training"), (f"val_{name}", "validation")):
            points = [(float(m["epoch"]), float(m[key])) for m in run.metrics if m.get(key) is not None]
            if points:
                series.append(Series(called, points))
        values = [value for one in series for _, value in one.points]
        y = Axis(title, 0.0, max(1.0, *values) if name == "accuracy" else max(values, default=1.0) * 1.05)
        ends = "; ".join(f"{one.name} {one.points[0][1]:.3f} to {one.points[-1][1]:.3f}" for one in series)
        described = f"From the first epoch to the last: {ends}."
        charts.append(html.figure(line_chart(f"{title} per epoch", described, x, y, series), described))
    return html.grid(charts)


def _curves(run: Run) -> str:
    scored = run.scored()
    labels, given = [scan.label for scan, _ in scored], [p for _, p in scored]
    groups = [scan.group for scan, _ in scored]
    shown = []
    auc, precision = run.evaluation["metrics"]["auc"], run.evaluation["metrics"]["average_precision"]
    unit = (0.0, 1.0)
    if (curve := roc(labels, given, groups)) is not None:
        told = f"AUC {html.with_interval(auc)}. The band is the 95% interval; the dashed line is chance."
        chart = line_chart(
            "ROC curve",
            told,
            Axis("1 - specificity", *unit),
            Axis("Sensitivity", *unit),
            [_series("ROC", curve)],
            chance=[(0, 0), (1, 1)],
        )
        shown.append(html.figure(chart, f"ROC curve. {told}"))
    if (curve := precision_recall(labels, given, groups)) is not None:
        share = sum(labels) / len(labels)
        told = (
            f"Average precision {html.with_interval(precision)}. The band is the 95% interval; the dashed line, "
            f"{share:.2f}, is the share of positive scans, which chance reaches."
        )
        chart = line_chart(
            "Precision-recall curve",
            told,
            Axis("Recall (sensitivity)", *unit),
            Axis("Precision", *unit),
            [_series("Precision", curve)],
            chance=[(0, share), (1, share)],
        )
        shown.append(html.figure(chart, f"Precision-recall curve. {told}"))
    bins = reliability(labels, given, groups)
    error = run.evaluation["metrics"]["ece"]
    told = (
        f"Expected calibration error {html.with_interval(error)}. Each dot is a tenth of the probability scale; on the "
        "dashed line, probabilities mean what they say."
    )
    chart = dot_chart(
        "Calibration",
        told,
        Axis("Mean probability given", *unit),
        Axis("Share that is positive", *unit),
        [(one.mean, one.share, one.low, one.high) for one in bins],
    )
    shown.append(html.figure(chart, f"Calibration. {told}"))
    shown.append(_confusion(run, scored))
    return html.grid(shown)


def _confusion(run: Run, scored: list[tuple[Scan, float]]) -> str:
    negative, positive = run.class_names()
    threshold = run.evaluation["threshold"]
    rows = []
    for label, name in ((1, positive), (0, negative)):
        called = [p >= threshold for scan, p in scored if scan.label == label]
        shares = [sum(called), len(called) - sum(called)]
        cells = [f"{count}<br><small>{count / max(1, len(called)):.0%}</small>" for count in shares]
        rows.append([escape(f"is {name}"), *cells])
    head = ["", f"called {positive}", f"called {negative}"]
    caption = f"Confusion matrix at threshold {threshold:.3g}"
    return f'<div class="matrix">{html.table(caption, head, rows, raw=True)}</div>'


def _formats(run: Run) -> str:
    names = ("auc", "accuracy", "sensitivity", "specificity")
    rows = [
        [name, str(found["n"]), *(html.with_interval(found[figure]) for figure in names)]
        for name, found in run.evaluation["by_format"].items()
    ]
    text = html.paragraph(
        "A network that tells the classes apart by how their files were compressed does well over all formats and "
        "badly within each. A figure that needs both classes is n/a where a format has only one."
    )
    head = ["Format", "Scans", *(TITLES[figure] for figure in names)]
    return text + html.table("Figures within each file format, with 95% intervals", head, rows)


def _shortcut(run: Run) -> str:
    shortcut = run.evaluation["shortcut"]
    rows = []
    for name, found in [("all together", shortcut), *shortcut["by_property"].items()]:
        auc = found["auc"]
        bar = "" if auc["value"] is None else interval_bar(auc["value"], auc["low"], auc["high"], mark=0.5)
        told = [html.with_interval(auc), bar, html.with_interval(found["accuracy"])]
        rows.append([escape(name.replace("_", " ")), *told])
    text = html.paragraph(
        "A random forest, fitted on train and val and scored on the same scans as the network, that sees no pixel: "
        "only what each file tells of itself. Where it does well, the data set gives the class away, and a network can "
        "do well for the same reason."
    )
    if run.config.get("data", {}).get("canonical"):
        text += html.paragraph(CANONICAL_NOTE)
    return text + html.table(
        "The forest's figures, with 95% intervals", ["Property", "ROC AUC", html.BARS, "Accuracy"], rows, raw=True
    )


def _mistakes(run: Run, explained: Explained) -> str:
    wrong = worst_mistakes(run)
    if not wrong:
        return html.paragraph("None: every scored scan was called rightly.")
    names = run.class_names()
    shown, has_overlay = [], False
    for scan, probability in wrong:
        told = f"{scan.path}: is {names[scan.label]}, probability of {names[1]} {probability:.3f}"
        images = ""
        if (known := explained.pictures.get(scan.path)) is not None:
            images = html.picture(known.scan, f"The scan {scan.path}")
            if known.overlay is not None:
                has_overlay = True
                images += html.picture(known.overlay, f"Grad-CAM over the scan {scan.path}")
            images = f'<div class="pair">{images}</div>'
        shown.append(html.figure(images, told))
    text = f"The {len(wrong)} scans that were called wrongly with the most confidence, as the network sees them."
    if has_overlay:
        text += " Beside each, Grad-CAM: the brighter, the more a place spoke for the class that was called."
    check = ""
    if explained.similarity is not None:
        alike = explained.similarity
        check = html.paragraph(
            f"Do the maps depend on what was learned? With random weights in place of the learned ones, their rank "
            f"correlation with these maps is {alike:.2f} on average (0: unrelated, 1: the same places)."
            + (" They hardly do: read nothing into them." if alike > 0.7 else ""),
            "soft",
        )
    return html.paragraph(text) + check + html.grid(shown, "pictures")


def _how(run: Run) -> str:
    summary = dict(run.summary)
    parts = []
    seconds = summary.pop("seconds", None)
    if isinstance(seconds, Mapping):
        rows = [[name.replace("_", " "), f"{value:.1f}"] for name, value in seconds.items()]
        parts.append(html.table("Wall seconds per phase", ["Phase", "Seconds"], rows))
    speed = [m["images_per_second"] for m in run.metrics if m.get("images_per_second") is not None]
    if speed:
        middle = sorted(speed)[len(speed) // 2]
        waits = sorted(m["data_wait_share"] for m in run.metrics if m.get("data_wait_share") is not None)
        waiting = f", waiting for data {waits[len(waits) // 2]:.1%} of the time" if waits else ""
        parts.append(html.paragraph(f"Training ran at {middle:.0f} scans a second{waiting} (medians over epochs)."))
    for name in ("run", "figures", "threshold", "notices"):
        summary.pop(name, None)  # They stand above.
    if summary:
        parts.append(f"<h3>Versions and what was exported</h3>{html.definition(summary)}")
    parts.append(f"<h3>Settings</h3>{html.definition(run.config)}")
    return "".join(parts)


def _series(name: str, curve: Curve) -> Series:
    def along(values: Any) -> Points:
        return list(zip(GRID.tolist(), values.tolist(), strict=True)) if len(values) else ()

    return Series(name, list(zip(curve.x.tolist(), curve.y.tolist(), strict=True)), along(curve.low), along(curve.high))
