"""Ours beside what people would use instead: `make bench`.

    python -m benchmarks.compare ROOT [--rounds N] [--epochs N] [--peers a,b] [--precisions float32] [--resume]

ROOT holds the scans. Every peer is a process of its own and gets the same scans in the same parts, the same initial
weights, optimizer and batch size; the peers take turns, round after round, so that what the machine does beside
falls on all alike. Writes benchmarks/results/speed.json (every invocation) and speed.md (the table), after every round.
One of ours whose loss or AUC is not that of float32 is refused: it has no row, and the exit status is 1.

Run it on a machine that does nothing else. With others on it, `--wrap 'flock /tmp/lock'` puts a command before every
measured one; what it waits is not measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import ours, quality, table
from benchmarks.code import fingerprint
from benchmarks.machine import flops_per_image, processor
from benchmarks.meter import run_metered
from benchmarks.ours import Shape
from benchmarks.summary import figures, summarise
from job.versions import git_commit

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("float32", "mixed_bfloat16")
OURS = {
    "ours-1x2": Shape(workers=1, threads=2),
    "ours-2x1": Shape(workers=2, threads=1),
    "ours-solo": Shape(workers=1, threads=2, ray=False),
}
OTHERS = ("imagedatagenerator", "tfdata", "pytorch")
PEERS = (*OTHERS, *OURS)
OPTIONS = {"pytorch": ("", "compiled")}
"""Ways to run a peer, of which the faster one is taken, for each precision."""
_TRIAL_EPOCHS = 3


@dataclass(frozen=True)
class Bench:
    """What all invocations have in common."""

    given: Path
    """Made by `benchmarks.prepare`."""
    overrides: tuple[str, ...]
    epochs: int
    threads: int
    wrap: tuple[str, ...]

    def prepare(self) -> dict[str, int]:
        """Lays out what all are given; returns the scans of each part."""
        command = [sys.executable, "-m", "benchmarks.prepare", str(self.given)]
        command += [word for each in self.overrides for word in ("--set", each)]
        _, said = run_metered(command, self.given, ())
        return dict(json.loads(said.splitlines()[-1]))

    def measure(self, peer: str, precision: str, option: str = "") -> dict[str, Any]:
        """One invocation, from a cold cache, in a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="bench-") as made:
            folder = Path(made)
            if peer in OURS:
                command = ours.command(OURS[peer], folder, precision, self.epochs, list(self.overrides))
                seen, _ = run_metered(command, folder, self.wrap, watch=ours.first_sign(folder))
                outcome = asdict(ours.outcome(folder, seen["appeared"]))
            else:
                seen, said = run_metered(self._command(peer, precision, option, folder), folder, self.wrap)
                outcome = json.loads(said.splitlines()[-1])
        return {"peer": peer, "precision": precision, "option": option, **seen, **outcome}

    def _command(self, peer: str, precision: str, option: str, folder: Path) -> list[str]:
        words = {
            "images": self.given / "images",
            "weights": self.given / "weights.npz",
            "export": folder / "exported",
            "epochs": self.epochs,
            "threads": self.threads,
            "precision": precision,
            "option": option,
        }
        return [
            *(sys.executable, "-m", f"benchmarks.peers.{peer}"),
            *(word for name, value in words.items() if value != "" for word in (f"--{name}", str(value))),
        ]


def peaks(bench: Bench) -> dict[str, float]:
    """The best rate of both libraries for each kind of product, GFLOP/s."""
    found: dict[str, float] = {}
    for library in ("tensorflow", "pytorch"):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            command = [sys.executable, "-m", "benchmarks.machine", library, "--threads", str(bench.threads)]
            _, said = run_metered(command, Path(folder), bench.wrap)
        for name, rate in json.loads(said.splitlines()[-1]).items():
            found[name] = max(rate, found.get(name, 0.0))
    return found


def trials(
    bench: Bench, peers: Sequence[str], precisions: Sequence[str], known: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Images per second of each way to run a peer, by "peer precision" and option, over a few epochs, but for what is
    `known`."""
    short, found = replace(bench, epochs=_TRIAL_EPOCHS), dict(known)
    for peer in peers:
        for precision in precisions if peer in OPTIONS else ():
            if f"{peer} {precision}" in known:
                continue
            each = {option: figures(short.measure(peer, precision, option)) for option in OPTIONS[peer]}
            found[f"{peer} {precision}"] = {option: one["images_per_second"] for option, one in each.items()}
            print(f"{peer} {precision}, images/s by option: {found[f'{peer} {precision}']}", file=sys.stderr)
    return found


def main() -> None:
    """See the module."""
    args = _arguments()
    peers = [peer for peer in args.peers.split(",") if peer]
    precisions = args.precisions.split(",")
    for word, known in ((peers, PEERS), (precisions, PRECISIONS)):
        if unknown := set(word) - set(known):
            sys.exit(f"no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    overrides = (f"data.root={Path(args.root).resolve()}", *args.set)
    RESULTS.mkdir(exist_ok=True)
    file = args.results or RESULTS / "speed.json"
    code = fingerprint()
    before = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        bench = Bench(Path(made), overrides, args.epochs, args.threads, tuple(shlex.split(args.wrap)))
        scans = bench.prepare()
        setting = {"scans": scans, "epochs": args.epochs, "threads": args.threads, "set": args.set}
        if args.resume and (before.get("code"), before.get("setting")) != (code, setting):
            sys.exit(f"--resume: {file} was measured with other code or settings")
        kept = before if args.resume else {}
        report: dict[str, Any] = {
            "code": code,
            "commit": git_commit(),
            "processor": processor(),
            "setting": setting,
            "flops_per_image": flops_per_image(),
            "peaks": kept.get("peaks") or peaks(bench),
            "trials": kept.get("trials", {}),
            "quality": before.get("quality", {}),
            "runs": kept.get("runs", []),
        }

        def save() -> dict[str, list[str]]:
            return _write(file, report, checked=args.quality == "check")

        save()
        shapes = {peer: OURS[peer] for peer in peers if peer in OURS}
        if args.quality == "check":
            for _ in quality.check(report["quality"], shapes, precisions, overrides, code, args.epochs, bench.wrap):
                save()
        report["trials"] = trials(bench, peers, precisions, report["trials"])
        for number in range(args.rounds):
            for precision in precisions:
                for peer in peers:
                    by_option = report["trials"].get(f"{peer} {precision}", {"": 0.0})
                    run = bench.measure(peer, precision, max(by_option, key=by_option.__getitem__))
                    report["runs"].append(run)
                    rate = figures(run)["images_per_second"]
                    print(f"round {number + 1}: {peer} {precision}: {rate:.0f} images/s", file=sys.stderr)
                    save()
        refused = save()
    print(file.with_suffix(".md").read_text())
    sys.exit(1 if refused else 0)


def _write(file: Path, report: dict[str, Any], *, checked: bool) -> dict[str, list[str]]:
    """Both files; returns the rows that were refused, with the reasons."""
    rows = {(run["peer"], run["precision"]): OURS[run["peer"]] for run in report["runs"] if run["peer"] in OURS}
    refused = quality.refused(report["quality"], rows, report["code"]) if checked else {}
    report["rows"] = summarise(report["runs"], report["peaks"], report["flops_per_image"]["training"], refused)
    report["refused"], report["quality_checked"] = refused, checked
    file.write_text(json.dumps(report, indent=1) + "\n")
    file.with_suffix(".md").write_text(table.markdown(report))
    return refused


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2, help="of every peer (default: 2)")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: all, %(default)s")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the job")
    parser.add_argument("--quality", choices=("check", "skip"), default="check", help="skip: for a quick look")
    parser.add_argument("--results", type=Path, help="the JSON file (default: benchmarks/results/speed.json)")
    parser.add_argument("--resume", action="store_true", help="add rounds to those that are there")
    parser.add_argument("--wrap", default="", metavar="COMMAND", help="put before every measured command")
    return parser.parse_args()


if __name__ == "__main__":
    main()
