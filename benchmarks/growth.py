"""How time and memory grow with the number of scans: catalog, cache, epochs; on two workers' shares.

    python -m benchmarks.growth [--sizes 1000,10000,100000] [--folder DIR] [--wrap COMMAND]

Draws small PNGs (64 x 64, gray, seeded), then runs what the job runs: the catalog in one process, and two workers, each
a process with one thread and a cache folder of its own, which fill it with their share and go through one epoch. Ray is
not there, and the network is next to nothing (one filter), so that the figures are those of the data's path. Decoded
scans take 150 KB each: 100,000 need 16 GB below DIR. Prints a Markdown table and writes benchmarks/results/growth.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.code import fingerprint
from benchmarks.machine import processor

RESULTS = Path(__file__).parent / "results"
WORKERS = 2


def measure(size: int, folder: Path, wrap: Sequence[str]) -> dict[str, Any]:
    """All stages for one number of scans, each a command of its own."""

    def stage(*words: str) -> Any:
        command = [*wrap, sys.executable, "-m", "benchmarks.growth_stage", *words, "--folder", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    print(f"{size} scans", file=sys.stderr)
    found = {
        "scans": size,
        "draw": stage("draw", "--scans", str(size)),
        "catalog": stage("catalog"),
        "catalog_again": stage("catalog"),
        "fill": stage("fill", "--workers", str(WORKERS)),
        "fill_again": stage("fill", "--workers", str(WORKERS)),
        "epoch": stage("epoch", "--workers", str(WORKERS)),
    }
    print(json.dumps(found), file=sys.stderr)
    return found


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """A row per number of scans."""
    heads = [
        "scans",
        "catalog, s",
        "again, s",
        "driver's peak, MB",
        "fill two caches, s",
        "check them, s",
        "one epoch, s",
        "per 1,000 scans, s",
        "worker's peak, MB",
        "of which before training, MB",
        "cache files per worker",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for each in found:
        fill, epoch = each["fill"], each["epoch"]
        cells = [
            f"{each['scans']:,}",
            f"{each['catalog']['seconds']:.1f}",
            f"{each['catalog_again']['seconds']:.1f}",
            f"{each['catalog']['peak_memory'] / 1e6:.0f}",
            f"{max(worker['seconds'] for worker in fill):.1f}",
            f"{max(worker['seconds'] for worker in each['fill_again']):.1f}",
            f"{max(worker['seconds'] for worker in epoch):.1f}",
            f"{1000 * max(worker['seconds'] for worker in epoch) / each['catalog']['train']:.2f}",
            f"{max(worker['peak_memory'] for worker in (*fill, *epoch)) / 1e6:.0f}",
            f"{max(worker['ready_memory'] for worker in epoch) / 1e6:.0f}",
            " and ".join(f"{worker['files']:,}" for worker in fill),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--folder", type=Path, help="for the scans and caches; a folder in it is made and removed")
    parser.add_argument("--wrap", default="", metavar="COMMAND", help="put before every measured command")
    args = parser.parse_args()
    found = []
    for size in map(int, args.sizes.split(",")):
        folder = Path(tempfile.mkdtemp(prefix="growth-", dir=args.folder))
        try:
            found.append(measure(size, folder, shlex.split(args.wrap)))
        finally:
            shutil.rmtree(folder)
    RESULTS.mkdir(exist_ok=True)
    report = {"processor": processor(), "code": fingerprint(), "sizes": found}
    (RESULTS / "growth.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{processor()}\n\n{markdown(found)}")


if __name__ == "__main__":
    main()
