"""From raw runs to a table: medians, spread, ratios, and the check that refuses a speed-up that costs quality.

Plain functions on plain data (no TensorFlow, no PyTorch): tests/unit/test_bench_summary.py holds them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t

REFERENCE = "imagedatagenerator"
"""What the ratios are taken against, in float32: the mission's own way."""

Run = Mapping[str, Any]
"""One invocation: "peer", "precision", "started" (Unix time), "peak_memory" and the fields of a peer's outcome."""


def figures(run: Run) -> dict[str, float | None]:
    """The figures of one invocation. Training is counted from the second epoch on, where there is one."""
    later = slice(1 if len(run["train_seconds"]) > 1 else 0, None)
    train, epoch = run["train_seconds"][later], run["epoch_seconds"][later]
    return {
        "images_per_second": run["images"] * len(train) / sum(train),
        "seconds_per_epoch": sum(epoch) / len(epoch),
        "first_step_seconds": None if run["first_step"] is None else run["first_step"] - run["started"],
        "wall_seconds": run["exported"] - run["started"],
        "peak_memory": run["peak_memory"],
        "data_wait_share": run["data_wait_share"],
        "test_auc": run["test_auc"],
        "last_loss": run["loss"][-1],
    }


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Median, least and greatest; None unless every invocation has the figure."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"median": statistics.median(known), "low": min(known), "high": max(known), "n": len(known)}


def summarise(
    runs: Sequence[Run], peaks: Mapping[str, float], flops: float, refused: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """A row per peer and precision, in order of appearance, without those that were `refused` ("peer precision").

    Args:
        runs: all invocations.
        peaks: GFLOP/s of the machine, "product float32", "convolution float32", ...
        flops: of the network, training, per image.
        refused: reasons by row; a row with reasons is not reported.
    """
    found: dict[tuple[str, str], list[dict[str, float | None]]] = {}
    for run in runs:
        found.setdefault((run["peer"], run["precision"]), []).append(figures(run))
    rows = []
    for (peer, precision), each in found.items():
        if refused.get(f"{peer} {precision}"):
            continue
        row: dict[str, Any] = {"peer": peer, "precision": precision}
        row |= {name: spread([one[name] for one in each]) for name in each[0]}
        peak = peaks.get(f"product {precision}")
        rate = row["images_per_second"]["median"]
        row["share_of_product_peak"] = None if peak is None else rate * flops / (peak * 1e9)
        rows.append(row)
    base = next((row for row in rows if (row["peer"], row["precision"]) == (REFERENCE, "float32")), None)
    for row in rows:
        row["times_reference"] = _ratio(row, base, "images_per_second")
        row["wall_of_reference"] = _ratio(row, base, "wall_seconds")
    return rows


def comparisons(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a reader wants to know first: ratios of medians between rows, in words; only those whose rows are there."""
    by_name = {(row["peer"], row["precision"]): row for row in rows}
    found: dict[str, float] = {}

    def add(words: str, figure: str, one: tuple[str, str], other: tuple[str, str]) -> None:
        if one in by_name and other in by_name:
            ratio = _ratio(by_name[one], by_name[other], figure)
            if ratio is not None:
                found[words] = ratio

    plain = "float32"
    for precision, name in ((plain, plain), ("mixed_bfloat16", "bfloat16")):
        ours, rate, wall = ("ours-1x2", precision), "images_per_second", "wall_seconds"
        add(f"images/s, {name}, against ImageDataGenerator in float32", rate, ours, (REFERENCE, plain))
        add(f"images/s, {name}, against PyTorch in {name}", rate, ours, ("pytorch", precision))
        add(f"images/s, {name}, 2 workers x 1 thread against 1 x 2", rate, ("ours-2x1", precision), ours)
        add(f"seconds per epoch, {name}, with Ray against without", "seconds_per_epoch", ours, ("ours-solo", precision))
        add(f"command to version, {name}, against ImageDataGenerator in float32", wall, ours, (REFERENCE, plain))
    return found


def _ratio(row: Mapping[str, Any], base: Mapping[str, Any] | None, name: str) -> float | None:
    if base is None or base[name] is None or row[name] is None:
        return None
    return float(row[name]["median"] / base[name]["median"])


def refusals(reference: Sequence[Mapping[str, Any]], candidate: Mapping[str, Any]) -> list[str]:
    """Why a variant may not be reported; empty if it may.

    Args:
        reference: float32 with one worker and three seeds: {"loss": per epoch, "auc": {"value", "low", "high"}},
            the interval being the 95% bootstrap interval of the test AUC.
        candidate: the same of the variant, with the first seed of the reference.

    The seeds say what is luck. With their mean as the centre, a curve must stay within the 95% prediction interval of
    one more such curve: at every epoch (for all epochs together, so Bonferroni; the variance is pooled over epochs, as
    three values say little of one epoch's), and as a whole, by its mean over the epochs, which a slower or lower curve
    shifts. The AUC must lie in the interval of the first seed.
    """
    if len(reference) < 2:
        return ["there are no float32 runs to compare with"]
    curves = np.array([each["loss"] for each in reference])
    loss = np.array(candidate["loss"])
    if loss.shape != curves.shape[1:]:
        return [f"{len(loss)} epochs of loss, the float32 runs have {curves.shape[1]}"]
    reasons = []
    seeds, epochs = curves.shape
    one_more = np.sqrt(1 + 1 / seeds)
    pooled = np.sqrt(curves.var(axis=0, ddof=1).mean())
    margin = t.ppf(1 - 0.025 / epochs, epochs * (seeds - 1)) * pooled * one_more
    for epoch, (value, centre) in enumerate(zip(loss, curves.mean(axis=0), strict=True), 1):
        if not abs(value - centre) <= margin:  # also when it is no number
            reasons.append(f"epoch {epoch}: loss {value:.4f} is outside of {centre:.4f} +- {margin:.4f}")
    means = curves.mean(axis=1)
    margin = t.ppf(0.975, seeds - 1) * means.std(ddof=1) * one_more
    if abs(loss.mean() - means.mean()) > margin:
        reasons.append(f"mean loss {loss.mean():.4f} is outside of {means.mean():.4f} +- {margin:.4f}")
    interval, value = reference[0]["auc"], candidate["auc"]["value"]
    if not interval["low"] <= value <= interval["high"]:
        reasons.append(f"test AUC {value:.3f} is outside of {interval['low']:.3f} to {interval['high']:.3f}")
    return reasons
