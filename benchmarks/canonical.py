"""What `data.canonical` leaves of compression and sharpness: can a forest tell a scan from its changed copy?

    python -m benchmarks.canonical ROOT [--scans N]

Takes PNG scans of at least 200 pixels a side below ROOT, makes a copy of each (JPEG of quality 75 or 40, or half the
size), and lets a random forest guess which is which from how much of each fineness a picture has, cross-validated over
groups. An AUC of 0.5 means that it cannot. Random forests differ by a few hundredths from seed to seed.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from job.groups import from_name
from job.preprocess import decoder

RINGS = 40


def main() -> None:
    """Prints a line per preprocessing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="ROOT", help="a folder of class folders")
    parser.add_argument("--scans", type=int, default=160, metavar="N", help="at most this many (default: 160)")
    args = parser.parse_args()
    chosen = [path for path in sorted(args.root.glob("*/*.png")) if _suits(path.read_bytes())]
    step = max(1, len(chosen) // args.scans)
    chosen = chosen[::step][: args.scans]
    contents = [path.read_bytes() for path in chosen]
    groups = [from_name(path.relative_to(args.root).as_posix()) for path in chosen]
    copies: dict[str, Callable[[bytes], bytes]] = {
        "JPEG of quality 75": lambda data: _jpeg(data, 75),
        "JPEG of quality 40": lambda data: _jpeg(data, 40),
        "half the size": _half,
    }
    print(f"{len(chosen)} scans; AUC of telling a copy from the original")
    for canonical in (False, True):
        decode = decoder(canonical=canonical)
        originals = [texture(decode(data).numpy()) for data in contents]
        told = []
        for name, copy in copies.items():
            copied = [texture(decode(copy(data)).numpy()) for data in contents]
            told.append(f"{name} {guess(np.array(originals + copied), groups * 2):.2f}")
        print(f"{'canonical' if canonical else 'plain':10} {', '.join(told)}", flush=True)


def texture(pixels: np.ndarray) -> np.ndarray:
    """The log power of the middle channel of uint8 [224, 224, 3] in rings of spatial frequency."""
    gray = pixels[..., 1].astype(np.float64)
    window = np.hanning(len(gray))
    power = np.abs(np.fft.fft2((gray - gray.mean()) * window * window[:, None])) ** 2
    across = np.fft.fftfreq(len(gray))
    ring = np.minimum((np.hypot(across, across[:, None]) * 56).astype(int), RINGS - 1).ravel()
    logs = np.log(np.bincount(ring, power.ravel(), RINGS) / np.bincount(ring, minlength=RINGS) + 1e-3)
    return np.concatenate([logs, np.diff(logs)])


def guess(features: np.ndarray, groups: list[str]) -> float:
    """The AUC of a forest that guesses whether a row is of the first or the second half."""
    labels = np.repeat([0, 1], len(features) // 2)
    given = np.zeros(len(labels))
    for fit, held_out in GroupKFold(4).split(features, labels, groups):
        forest = RandomForestClassifier(200, random_state=0).fit(features[fit], labels[fit])
        given[held_out] = forest.predict_proba(features[held_out])[:, 1]
    return float(roc_auc_score(labels, given))


def _suits(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return image.format == "PNG" and min(image.size) >= 200


def _jpeg(data: bytes, quality: int) -> bytes:
    stored = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(stored, "JPEG", quality=quality)
    return stored.getvalue()


def _half(data: bytes) -> bytes:
    image, stored = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
    image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(stored, "PNG")
    return stored.getvalue()


if __name__ == "__main__":
    main()
