"""The quality check of the bench: runs on the published split, kept as long as the code stays the same.

Three seeds in float32 say what is luck; every variant of ours (precision, workers) then has to stay within that.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.meter import run_metered
from benchmarks.ours import Shape
from benchmarks.summary import refusals

SEEDS = (0, 1, 2)
PUBLISHED = ("data.split=published", "data.per_class=null")


def key(shape: Shape, precision: str, seed: int = SEEDS[0]) -> str:
    """The name of one run. With Ray taken out one worker's result is the same."""
    return f"{precision} {shape.workers}x{shape.threads} seed {seed}"


def check(
    held: dict[str, Any],
    shapes: Mapping[str, Shape],
    precisions: Sequence[str],
    overrides: Sequence[str],
    code: str,
    epochs: int,
    wrap: Sequence[str],
) -> None:
    """Adds to `held` the runs that are not in it: `{"code", "epochs", "threads", "runs": {key: quality}}`."""
    if (held.get("code"), held.get("epochs")) != (code, epochs):
        held.clear()
        held.update({"code": code, "epochs": epochs, "runs": {}})
    wanted = [(_reference(shapes), "float32", seed) for seed in SEEDS] if shapes else []
    wanted += [(shape, precision, SEEDS[0]) for shape in shapes.values() for precision in precisions]
    for shape, precision, seed in wanted:
        if key(shape, precision, seed) in held["runs"]:
            continue
        print(f"quality check: {key(shape, precision, seed)}", file=sys.stderr)
        # One worker without Ray gives the same weights as one with it, sooner.
        quick = Shape(shape.workers, shape.threads, ray=shape.workers > 1)
        with tempfile.TemporaryDirectory(prefix="bench-") as made:
            folder = Path(made)
            run_metered(ours.command(quick, folder, precision, epochs, [*overrides, *PUBLISHED], seed), folder, wrap)
            held["runs"][key(shape, precision, seed)] = ours.quality(folder)


def refused(held: Mapping[str, Any], shapes: Mapping[str, Shape], code: str) -> dict[str, list[str]]:
    """The rows ("peer precision") that may not be reported, with the reasons."""
    runs = held.get("runs", {}) if held.get("code") == code else {}
    reference = [runs[name] for seed in SEEDS if (name := key(_reference(shapes), "float32", seed)) in runs]
    found = {}
    for peer, shape in shapes.items():
        for precision in ("float32", "mixed_bfloat16"):
            if key(shape, precision) in runs:
                reasons = refusals(reference, runs[key(shape, precision)])
                if reasons:
                    found[f"{peer} {precision}"] = reasons
    return found


def _reference(shapes: Mapping[str, Shape]) -> Shape:
    threads = max(shape.workers * shape.threads for shape in shapes.values())
    return Shape(workers=1, threads=threads)
