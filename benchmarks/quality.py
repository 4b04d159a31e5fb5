"""The quality check of the bench: runs on the published split, kept as long as the code stays the same.

Three seeds in float32 say what is luck; every variant of ours (precision, workers) then has to stay within that.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
) -> Iterator[str]:
    """Adds to `held` the runs that are not in it, `{"code", "epochs", "runs": {key: quality}}`, and says which."""
    if (held.get("code"), held.get("epochs")) != (code, epochs):
        held.clear()
        held.update({"code": code, "epochs": epochs, "runs": {}})
    wanted = [(_reference(shapes.values()), "float32", seed) for seed in SEEDS] if shapes else []
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
        yield key(shape, precision, seed)


def refused(held: Mapping[str, Any], rows: Mapping[tuple[str, str], Shape], code: str) -> dict[str, list[str]]:
    """Which of `rows` (by peer and precision) may not be reported, as "peer precision", with the reasons."""
    runs = held.get("runs", {}) if held.get("code") == code else {}
    found = {}
    for (peer, precision), shape in rows.items():
        names = [key(_reference([shape]), "float32", seed) for seed in SEEDS]
        if any(name not in runs for name in (*names, key(shape, precision))):
            reasons = ["its quality was not measured"]
        else:
            reasons = refusals([runs[name] for name in names], runs[key(shape, precision)])
        if reasons:
            found[f"{peer} {precision}"] = reasons
    return found


def _reference(shapes: Iterable[Shape]) -> Shape:
    """One worker with all the threads: what the others are compared with."""
    return Shape(workers=1, threads=max(shape.workers * shape.threads for shape in shapes))
