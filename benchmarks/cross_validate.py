"""Recipes compared without a look at the test part: AUC of scans that were left out of training, fold by fold.

    python -m benchmarks.cross_validate ROOT RECIPE.yaml [RECIPE.yaml ...] [--folds 5] [--seed 0] [--set KEY=VALUE ...]

The scans of train and val are dealt to folds by group, and each fold is scored by a network that was trained on the
others. All recipes get the same folds. The test part is not read. Prints a Markdown table; one process per processor.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from job import catalog, checkpoint, run, settings
from job.scan import Scan, to_lines
from job.storage import LocalStorage, open_storage


def deal(scans: Sequence[Scan], folds: int, fold: int) -> list[Scan]:
    """The scans of train and val, those of one fold as val and all others as train."""
    from sklearn.model_selection import StratifiedGroupKFold

    known = [scan for scan in scans if scan.split != "test"]
    labels, groups = [scan.label for scan in known], [scan.group for scan in known]
    # Of its own, whatever the seed of training: folds are to be the same for all.
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    _, left_out = list(dealer.split(labels, labels, groups))[fold]
    chosen = set(left_out.tolist())
    return [replace(scan, split="val" if index in chosen else "train") for index, scan in enumerate(known)]


def score(config: settings.Settings, folds: int, fold: int) -> float:
    """Trains without one fold, in this process, and scores that."""
    from sklearn.metrics import roc_auc_score

    from job.cache import Cache
    from job.predict import probabilities, trained
    from job.trainer import limit_threads
    from job.worker import Solo, work

    limit_threads(1)
    scans = deal(catalog.build(config.data, 0).scans, folds, fold)
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(folder)
        storage.write(run.MANIFEST, to_lines(scans))
        work(config, storage.url, Solo(), print)
        found = checkpoint.load_newest(storage, print)
    if found is None:
        raise SystemExit("training left no checkpoint")
    left_out = [scan for scan in scans if scan.split == "val"]
    cache = Cache(open_storage(config.data.root), canonical=config.data.canonical)
    given = probabilities(trained(config, found[1]), left_out, cache, 32, 1)
    return float(roc_auc_score([scan.label for scan in left_out], given))


def main() -> None:
    """Prints the table, or with --fold one AUC."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("recipes", nargs="+", metavar="RECIPE.yaml")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--fold", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sets = [f"data.root={args.root}", "data.split=published", "data.per_class=null", f"training.seed={args.seed}"]
    if args.fold is not None:
        print(score(settings.load(args.recipes[0], [*sets, *args.set]), args.folds, args.fold))
        return

    def measure(recipe: str, fold: int) -> float:
        command = [sys.executable, "-m", "benchmarks.cross_validate", args.root, recipe, "--fold", str(fold)]
        command += ["--folds", str(args.folds), "--seed", str(args.seed)]
        command += [word for each in args.set for word in ("--set", each)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return float(done.stdout.split()[-1])

    print("| recipe | mean AUC | by fold |\n|---|---|---|")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for recipe in args.recipes:
            found = list(pool.map(lambda fold, name=recipe: measure(name, fold), range(args.folds)))
            cells = ", ".join(f"{auc:.2f}" for auc in found)
            print(f"| {Path(recipe).stem} | {statistics.mean(found):.3f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
