"""What the audit's search for candidates of near duplicates takes: seconds and memory by number of scans.

    python -m benchmarks.duplicates [--scans 1000,10000,100000] [--pairs-up-to 10000]

Signatures are made up. "patients": slices that are like others of their patient and somewhat like all scans, as CT
slices of a chest are, 2% of them copied; "noise": nothing is like anything, which no order of the signatures helps
with. Up to --pairs-up-to scans, comparing all pairs is timed too, and its candidates must be the same.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from job.audit.nearest import LENGTH, Signatures, nearest

MOST, LEAST = 5, 0.93
"""As the audit has them."""

_BLOCK = 2048

_SPREAD = (0.356, 0.110, 0.073, 0.052, 0.046, 0.040, 0.031, 0.027, 0.022, 0.020, 0.020, 0.017)
"""Shares of the variance of COVID-CT's signatures along their first principal axes."""


def main() -> None:
    """Prints a line per kind and number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", default="1000,10000,100000", metavar="N,..", help="default: 1000,10000,100000")
    parser.add_argument("--pairs-up-to", type=int, default=10_000, metavar="N", help="default: 10000")
    args = parser.parse_args()
    for kind, make in (("patients", patients), ("noise", noise)):
        for n in map(int, args.scans.split(",")):
            plain = make(n)
            mirrored = np.ascontiguousarray(plain.reshape(-1, 8, 8)[:, :, ::-1].reshape(plain.shape))
            began = time.perf_counter()
            found = nearest(plain, mirrored, MOST, LEAST)
            took = time.perf_counter() - began
            line = f"{kind:9} {n:7,} scans: {took:7.2f} s, {len(found):,} candidates"
            if n <= args.pairs_up_to:
                began = time.perf_counter()
                every = all_pairs(plain, mirrored)
                line += f"; all pairs {time.perf_counter() - began:.2f} s"
                if not np.array_equal(found, every):
                    raise SystemExit(f"{line}: not the same candidates")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{line}; peak memory so far {peak:.0f} MB", flush=True)


def patients(n: int) -> Signatures:
    """Signatures [n, 64] of slices of patients, eight each, spread along their axes as those of COVID-CT are."""
    chance = np.random.default_rng(0)
    spread = np.sqrt([*_SPREAD, *[(1 - sum(_SPREAD)) / (64 - len(_SPREAD))] * (64 - len(_SPREAD))])
    people = -(-n // 8)
    slices = np.sqrt(0.92) * chance.standard_normal((people, 1, 64)) + np.sqrt(0.08) * chance.standard_normal(
        (people, 8, 64)
    )
    rows = (slices * spread).reshape(-1, 64)[:n]
    rows[:, len(_SPREAD)] += 0.75  # What all chests have in common.
    rows = rows @ np.linalg.qr(chance.standard_normal((64, 64)))[0]
    copies = chance.choice(n, size=n // 50, replace=False)
    rows[copies] = rows[chance.choice(n, size=len(copies))] + 0.02 * chance.standard_normal((len(copies), 64))
    return _signatures(rows)


def noise(n: int) -> Signatures:
    """Signatures [n, 64] without any structure."""
    return _signatures(np.random.default_rng(0).standard_normal((n, 64)))


def all_pairs(plain: Signatures, mirrored: Signatures) -> np.ndarray:
    """What `nearest` must find, [m, 3], block by block of all pairs."""
    found = []
    for top in range(0, len(plain), _BLOCK):
        rows = np.arange(top, min(top + _BLOCK, len(plain)))
        keys = np.zeros((len(rows), 0), np.int64)
        for flipped, others in ((0, plain), (1, mirrored)):
            for low in range(0, len(plain), _BLOCK):
                places = np.arange(low, min(low + _BLOCK, len(plain)))
                product = (plain[rows] @ others[places].T).astype(np.int64)
                product[rows[:, None] == places] = 0
                new = np.where(product > LEAST * LENGTH**2, product << 40 | places * 2 + flipped, 0)
                keys = np.concatenate([keys, new], axis=1)
                if keys.shape[1] > MOST:
                    keys = np.partition(keys, keys.shape[1] - MOST, axis=1)[:, -MOST:]
        ones, columns = np.nonzero(keys)
        places = keys[ones, columns] & ((1 << 40) - 1)
        one, other = rows[ones], places >> 1
        found.append(np.stack([np.minimum(one, other), np.maximum(one, other), places & 1], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _signatures(rows: np.ndarray) -> Signatures:
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.round(LENGTH * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
