"""let a label name the version before the one it names

The newest complete version that is older; it is not checked again, so that going back is quick.
"""

from __future__ import annotations

import argparse

from job.storage import open_storage
from serving.commands.promote import add_label_arguments, point
from serving.registry import version_before


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument("target", metavar="TARGET", help="the folder or s3:// prefix that holds 1/, 2/, ...")
    add_label_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`."""
    return point(args.target, args.label, version_before(open_storage(args.target), args.label), args.server)
