"""Train, evaluate and export: the whole job.

Joins the Ray cluster it was submitted to, else the one in RAY_ADDRESS, else starts a local one. A run NAME that exists
and is unfinished is resumed; a finished one is left as it is. The run's summary goes to standard output.
"""

import argparse
import json
import time

from job import settings
from job.console import say


def arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, --set and --run."""
    settings.add_arguments(parser)
    parser.add_argument("--run", metavar="NAME", help="the run's name below `runs` (default: one made of the time)")


def run(args: argparse.Namespace) -> int:
    """Runs the job and prints its summary."""
    wanted = settings.load(args.config, args.set)
    name = args.run or time.strftime("run-%Y%m%d-%H%M%S")
    from job.train import train

    summary = train(wanted, name)
    exported = summary["exported"]
    verb = "refused by export.quality_gate, kept in" if exported["refused"] else "exported"
    say(f"{verb} {exported['url']}, report {wanted.runs.rstrip('/')}/{name}/report.html")
    print(json.dumps(summary, indent=1, ensure_ascii=False))
    return 1 if exported["refused"] else 0
