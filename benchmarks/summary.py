"""From raw runs to a table: medians, spread, ratios, and the check that refuses a speed-up that costs quality.

Plain functions on plain data (no TensorFlow, no PyTorch): tests/unit/test_bench_summary.py holds them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

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

    The loss must stay, at every epoch, between the least and the greatest of the seeds, widened on both sides by half
    of the widest range between them in that epoch, the one before and the one after: three seeds show a part only of
    what seeds do, and a peak that comes an epoch later is no loss of quality. The AUC must lie in the interval of the
    first seed.
    """
    if not reference:
        return ["there is no float32 run to compare with"]
    curves = [each["loss"] for each in reference]
    if {len(curve) for curve in curves} != {len(candidate["loss"])}:
        return [f"{len(candidate['loss'])} epochs of loss, the float32 runs have {sorted({len(c) for c in curves})}"]
    reasons = []
    ranges = [max(at) - min(at) for at in zip(*curves, strict=True)]
    for epoch, (loss, *seeds) in enumerate(zip(candidate["loss"], *curves, strict=True)):
        margin = max(ranges[max(0, epoch - 1) : epoch + 2]) / 2
        low, high = min(seeds) - margin, max(seeds) + margin
        if not low <= loss <= high:  # also when it is no number
            reasons.append(f"epoch {epoch + 1}: loss {loss:.4f} is outside of {low:.4f} to {high:.4f}")
    interval, value = reference[0]["auc"], candidate["auc"]["value"]
    if not interval["low"] <= value <= interval["high"]:
        reasons.append(f"test AUC {value:.3f} is outside of {interval['low']:.3f} to {interval['high']:.3f}")
    return reasons
