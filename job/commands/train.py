"""Train, evaluate and export: the whole job.

Joins the Ray cluster it was submitted to, else the one in RAY_ADDRESS, else starts a local one. A run NAME that exists
and is unfinished is resumed; a finished one is left as it is. The run's summary goes to standard output.
"""

import argparse
import json
import time

from job import settings
from job.console import say
from job.signals import sigterm_ends


def arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, --set, --run and --seeds."""
    settings.add_arguments(parser)
    parser.add_argument("--run", metavar="NAME", help="the run's name below `runs` (default: one made of the time)")
    parser.add_argument("--seeds", metavar="S,S,...", help="one run per seed, NAME-seedS, with mean and spread")


def run(args: argparse.Namespace) -> int:
    """Runs the job and prints its summary."""
    with sigterm_ends():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    wanted = settings.load(args.config, args.set)
    name = args.run or time.strftime("run-%Y%m%d-%H%M%S")
    if args.seeds is not None:
        return _several(wanted, name, args.seeds)
    from job.train import train

    summary = train(wanted, name)
    exported = summary["exported"]
    verb = "refused by export.quality_gate, kept in" if exported["refused"] else "exported"
    say(f"{verb} {exported['url']}, report {wanted.runs.rstrip('/')}/{name}/report.html")
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if exported["refused"] else 0


def _several(wanted: settings.Settings, name: str, seeds: str) -> int:
    from job.seeds import parse_seeds, train_seeds

    result = train_seeds(wanted, name, parse_seeds(seeds))
    for figure, found in result["figures"].items():
        spread = "not defined"
        if found["mean"] is not None:
            spread = f"{found['mean']:.3f} ± {found['standard_deviation']:.3f}"
        say(f"{figure:18} {spread} (mean and standard deviation over {len(found['values'])} seeds)")
    say(f"side by side: {result['comparison']}")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 1 if any(summary["exported"]["refused"] for summary in result["runs"].values()) else 0
