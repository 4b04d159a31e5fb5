"""list the versions in a folder or s3:// prefix, with their labels and sizes"""

from __future__ import annotations

import argparse

from job.console import say
from job.storage import open_storage
from serving.registry import read_labels, versions


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument("target", metavar="TARGET", help="the folder or s3:// prefix that holds 1/, 2/, ...")


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`."""
    storage = open_storage(args.target)
    storage.check()
    labels, there = read_labels(storage), versions(storage)
    if not there:
        say("no complete version is there")
        return 0
    print(f"{'version':>7}  {'bytes':>13}  labels")
    for number in there:
        size = sum(content.size for content in storage.manifest(str(number)).files.values())
        names = " ".join(sorted(label for label, named in labels.items() if named == number))
        print(f"{number:>7}  {size:>13,}  {names}".rstrip())
    return 0
