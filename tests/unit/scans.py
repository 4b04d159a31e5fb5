"""Scans made up for tests of what works on a catalog."""

import hashlib
from typing import Any

import numpy as np

from job.scan import Scan


def made(number: int = 0, **known: Any) -> Scan:
    """A scan with plain values, but for those that are given."""
    values: dict[str, Any] = {
        "path": f"CT_COVID/{number}.png",
        "size": 40_000 + number,
        "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        "label": 1,
        "group": f"patient {number}",
        "split": "train",
        "width": 300,
        "height": 200,
        "mode": "L",
        "format": "PNG",
    }
    return Scan(**{**values, **known})


def population(n: int, seed: int = 0, *, leak: bool) -> list[Scan]:
    """`n` scans of both classes in groups of two; with `leak`, the positive ones are wider and RGBA more often."""
    generator = np.random.default_rng(seed)
    scans = []
    for i in range(n):
        label = (i // 2) % 2
        tell = leak and label == 1 and generator.random() < 0.8
        scans.append(
            made(
                i,
                path=f"{'CT_COVID' if label else 'CT_NonCOVID'}/{i}.png",
                label=label,
                group=f"patient {i // 2}",
                split="test" if (i // 2) % 4 > 1 else "train",
                size=int(generator.integers(30_000, 60_000)),
                width=int(generator.integers(200, 500)) + 200 * tell,
                height=int(generator.integers(200, 500)),
                mode="RGBA" if tell else "RGB",
                format=str(generator.choice(["PNG", "JPEG"])),
            )
        )
    return scans
