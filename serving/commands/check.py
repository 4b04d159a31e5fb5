"""check that a version is whole and answers as it did when it was exported

It is verified against its manifest, loaded, and asked its warm-up requests; the probabilities must be the recorded
ones. `pull` and `promote` do this by themselves.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument("version", type=Path, metavar="VERSION_DIR", help="a local folder such as models/covid_ct/3")


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from serving.model import check_version

    check_version(args.version)
    print(f"{args.version}: good")
    return 0
