"""The same job with several seeds: what of a figure is luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from job.errors import UsageError
from job.metrics import NAMES
from job.settings import Settings
from job.storage import open_storage


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` as numbers. Raises `UsageError` unless they are two or more different whole numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < 2**32 for part in parts) or len({int(part) for part in parts}) < 2:
        raise UsageError(f"--seeds {text}: write two or more different seeds, for example --seeds 0,1,2")
    return list(dict.fromkeys(int(part) for part in parts))


def train_seeds(settings: Settings, name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Trains one run per seed, `<name>-seed<seed>`, one after the other, and puts them side by side.

    Returns:
        `{"runs": {name: summary}, "figures": {figure: {"mean", "standard_deviation", "values"}}, "comparison": url}`.
        The spread is that of everything the seed decides: weights and order, and, unless data.split is published,
        which scans are in which part.
    """
    from job.report.compare import compare_html
    from job.report.run import load_run
    from job.train import train

    summaries = {}
    for seed in seeds:
        own = f"{name}-seed{seed}"
        summaries[own] = train(replace(settings, training=replace(settings.training, seed=seed)), own)
    storage = open_storage(settings.runs)
    storage.write(f"{name}-seeds.html", compare_html([load_run(storage, own) for own in summaries]).encode())
    return {
        "runs": summaries,
        "figures": figure_spread([summary["figures"] for summary in summaries.values()]),
        "comparison": f"{settings.runs.rstrip('/')}/{name}-seeds.html",
    }


def figure_spread(figures: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each figure's values, mean and sample standard deviation; None where a run has none."""
    spread = {}
    for name in NAMES:
        values = [found[name]["value"] for found in figures]
        whole = len(values) > 1 and None not in values
        spread[name] = {
            "mean": mean(values) if whole else None,
            "standard_deviation": stdev(values) if whole else None,
            "values": values,
        }
    return spread
