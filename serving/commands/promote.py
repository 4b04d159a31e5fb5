"""let a label name another version, once that version has passed its check

Servers follow: the version that the label named answers until the new one is loaded. Going back is the same command
with an older version, or `rollback`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from job.console import say
from job.errors import UserError
from job.storage import open_storage
from serving.check import Checker
from serving.registry import move_label, versions


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument("target", metavar="TARGET", help="the folder or s3:// prefix that holds 1/, 2/, ...")
    parser.add_argument("version", type=int, metavar="VERSION", help="the number of a version there")
    add_label_arguments(parser)
    parser.add_argument("--unchecked", action="store_true", help="do not load it first and ask its warm-up requests")


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """What `promote` and `rollback` share."""
    parser.add_argument("--label", default="stable", help="%(default)s")
    parser.add_argument("--server", metavar="URL", help="refuse unless the server there has loaded the version")


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`."""
    storage = open_storage(args.target)
    if not args.unchecked and args.version in versions(storage):
        with tempfile.TemporaryDirectory(prefix="covid-ct-promote-") as temporary:
            folder = Path(temporary) / str(args.version)
            storage.read_bundle(str(args.version), folder)
            Checker()(folder)
    return point(args.target, args.label, args.version, args.server)


def point(target: str, label: str, version: int, server: str | None) -> int:
    """Moves the label and says so; with `server`, only to a version that is loaded there. The exit code."""
    if server is not None:
        require_loaded(server, target.rstrip("/").rpartition("/")[2], version)
    before = move_label(open_storage(target), label, version)
    if before == version:
        say(f"{label} was version {version} already")
    print(f"{label} = {version}" + (f", before {before}" if before not in (None, version) else ""))
    return 0


def require_loaded(server: str, name: str, version: int) -> None:
    """Raises `UserError` unless the server at that REST address has loaded the version."""
    from serving.client import RestClient

    with RestClient(server, name=name, timeout=10) as client:
        states = client.status()
    if states.get(version) != "AVAILABLE":
        loaded = ", ".join(str(number) for number, state in sorted(states.items()) if state == "AVAILABLE") or "none"
        raise UserError(f"{server}: version {version} of {name} is not loaded there (loaded: {loaded}); pull it first")
