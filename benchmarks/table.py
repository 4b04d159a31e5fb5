"""The comparison as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.summary import comparisons

NAMES = {
    "imagedatagenerator": "ImageDataGenerator + `fit`",
    "tfdata": "tf.data + `fit`",
    "pytorch": "PyTorch",
    "ours-1x2": "ours, 1 worker x 2 threads",
    "ours-2x1": "ours, 2 workers x 1 thread",
    "ours-solo": "ours, without Ray",
}
SHORT = {"float32": "float32", "mixed_bfloat16": "bfloat16"}


def markdown(report: Mapping[str, Any]) -> str:
    """The whole of speed.md."""
    setting, peaks, flops = report["setting"], report["peaks"], report["flops_per_image"]
    rounds = max((row["images_per_second"]["n"] for row in report["rows"]), default=0)
    lines = [
        "# Training speed",
        "",
        f"{report['processor']}, {setting['threads']} threads; {setting['scans']['train']} scans fitted on, "
        f"{setting['scans']['val']} for validation, {setting['scans']['test']} scored; {setting['epochs']} epochs of "
        f"batches of 32. Medians (least to greatest) of {rounds} rounds in which all took turns. "
        "Made by `make bench`; every invocation is in speed.json.",
        "",
        "| | precision | images/s | times | first step, s | command to version, s | of the time | peak memory, GB "
        "| waiting for data | of the product peak | test AUC |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(row) for row in report["rows"]),
        "",
        "*images/s*: in training, from the second epoch on. *times*, *of the time*: against ImageDataGenerator + `fit` "
        "in float32. *peak memory*: what all processes hold for themselves (files they map are not counted). "
        "*test AUC* is of a model that has hardly converged, on few scans: it shows that all do the same, no more.",
        "",
        "## Ours beside the others",
        "",
        "| ratio of medians | |",
        "|---|---|",
        *(f"| {words} | {ratio:.2f} |" for words, ratio in comparisons(report["rows"]).items()),
        "",
        "## The bound",
        "",
        f"The network takes {flops['training'] / 1e6:.0f} MFLOP per image, forward and backward "
        f"({flops['forward'] / 1e6:.0f} forward), counted from its shapes: convolutions and dense layers only.",
        "",
        "| | float32 | bfloat16 |",
        "|---|---|---|",
    ]
    for kind, name in (("product", "4096 x 4096 matrix product"), ("convolution", "3x3 convolution, 128 channels")):
        rates = [peaks.get(f"{kind} {precision}") for precision in SHORT]
        lines.append(f"| {name}, best of TensorFlow and PyTorch, GFLOP/s | {' | '.join(map(_whole, rates))} |")
        bounds = [rate and rate * 1e9 / flops["training"] for rate in rates]
        lines.append(f"| images/s, were all of the network as fast | {' | '.join(map(_whole, bounds))} |")
    for name, rates in report["trials"].items():
        said = ", ".join(f"{option or 'plain'} {rate:.0f} images/s" for option, rate in rates.items())
        lines += ["", f"{name}, tried before and the faster taken: {said}."]
    lines += _quality(report)
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    share, wait = row["share_of_product_peak"], row["data_wait_share"]
    cells = [
        NAMES.get(row["peer"], row["peer"]),
        SHORT[row["precision"]],
        _figure(row["images_per_second"], ".0f"),
        _one(row["times_reference"], ".2f"),
        _figure(row["first_step_seconds"], ".1f"),
        _figure(row["wall_seconds"], ".1f"),
        _one(row["wall_of_reference"], ".2f"),
        _figure(row["peak_memory"], ".1f", 1e-9),
        "" if wait is None else f"{wait['median']:.1%}",
        _one(share, ".0%"),
        _figure(row["test_auc"], ".2f"),
    ]
    return f"| {' | '.join(cells)} |"


def _quality(report: Mapping[str, Any]) -> list[str]:
    lines = ["", "## Quality", ""]
    if not report["quality_checked"]:
        return [*lines, "**Not checked** (`--quality skip`): these figures may not be quoted."]
    lines += [
        "On the published split, all scans: training loss of the last epoch, and test AUC with its 95% interval. A "
        "variant of ours is reported above only if its loss keeps to the spread of three float32 seeds, at "
        "every epoch and as a whole, and its AUC to the interval of the first (`benchmarks/summary.py`: `refusals`).",
        "",
        "| | last loss | test AUC |",
        "|---|---|---|",
    ]
    for name, run in report["quality"].get("runs", {}).items():
        auc = run["auc"]
        lines.append(f"| {name} | {run['loss'][-1]:.3f} | {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f}) |")
    for row, reasons in report["refused"].items():
        lines += ["", f"**Refused: {row}**: {'; '.join(reasons)}."]
    return lines


def _figure(found: Mapping[str, float] | None, form: str, unit: float = 1.0) -> str:
    if found is None:
        return ""
    median, low, high = (format(found[name] * unit, form) for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})" if found["n"] > 1 else median


def _one(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
