"""bring versions to the folder that a server watches

Each version is verified, loaded and asked its warm-up requests before it appears; one that fails is said and left
out, and what is there stays. The newest --keep versions are fetched, and every labelled one; labels follow once their
version is there. With --watch this goes on until SIGTERM, which ends it at once: what is half done is taken up by the
next pull.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from job.console import say
from job.errors import UsageError, UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument("source", metavar="SOURCE", help="the folder or s3:// prefix that holds 1/, 2/, ...")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of the model, such as /models/covid_ct")
    parser.add_argument("--watch", action="store_true", help="go on looking for versions and labels")
    parser.add_argument("--interval", type=float, default=10.0, metavar="SECONDS", help="between looks (%(default)s)")
    parser.add_argument(
        "--keep",
        type=int,
        default=2,
        metavar="K",
        help="newest versions to have, beside labelled and served ones (2)",
    )
    parser.add_argument("--server", metavar="URL", help="REST address of the server: what it has loaded is not removed")
    parser.add_argument(
        "--model-config",
        type=Path,
        metavar="FILE",
        help="write TF Serving's model config there, with labels for versions that --server says are loaded",
    )
    parser.add_argument("--name", default="", help="the model's name in the server (that of DIR)")


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`."""
    least = 1 if args.server else 2
    if args.keep < least:
        reason = "" if args.server else ": without --server, the one before the newest may still be served"
        raise UsageError(f"--keep must be at least {least}{reason}")
    if args.interval <= 0:
        raise UsageError("--interval must be above 0")
    from serving.check import Checker
    from serving.pull import Plan, Puller

    checker = Checker()
    _end_at_once_on_signals(checker.stop)
    plan = Plan(args.source, args.folder, args.keep, args.server, args.model_config, args.name)
    puller = Puller(plan, checker, say)
    if not args.watch:
        puller.round()
        return 0
    last = ""
    while True:
        try:
            puller.round()
            last = ""
        except UserError as error:
            if str(error) != last:
                say(f"trying again every {args.interval:g} s: {error}")
            last = str(error)
        # Sidecars that started together do not ask together for ever.
        time.sleep(args.interval * random.uniform(0.9, 1.1))


def _end_at_once_on_signals(before: Callable[[], None]) -> None:
    """SIGTERM and SIGINT end the process there and then, also as process 1 of a container.

    Nothing needs an orderly end (a download goes on where it was), and waiting for reads under way would take as long
    as a store that hangs.
    """

    def end(number: int, _: object) -> None:
        before()
        os._exit(0 if number == signal.SIGTERM else 130)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
