"""copy an exported version to where servers pull it from

The version keeps its number if that is above all that are there, else it gets the next one. Its address is printed. A
version that is there already is left as it is, so repeating the command does no harm.
"""

from __future__ import annotations

import argparse

from job.console import say
from serving.registry import publish


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument(
        "version", metavar="VERSION_DIR", help="such as models/covid_ct/3 or s3://bucket/models/covid_ct/3"
    )
    parser.add_argument("target", metavar="TARGET", help="the folder or s3:// prefix that holds 1/, 2/, ...")


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`."""
    number, is_new = publish(args.version, args.target)
    if not is_new:
        say("it is there already")
    print(f"{args.target.rstrip('/')}/{number}")
    return 0
