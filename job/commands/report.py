"""Make a run's report again, or compare runs side by side.

RUN is a run's name below --runs, or its folder or s3:// address. One run's report.html is made anew in its folder;
several are compared on one page, of which the first is what the others are measured against.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from job import settings
from job.console import say
from job.errors import UserError
from job.storage import open_storage


def arguments(parser: argparse.ArgumentParser) -> None:
    """RUN, --runs and --out."""
    parser.add_argument("run_names", nargs="+", metavar="RUN", help="a run's name, folder or s3:// address")
    parser.add_argument("--runs", default="runs", metavar="ROOT", help="where named runs are (default: runs)")
    parser.add_argument(
        "--out", metavar="FILE", help="where the page goes (default: the run's report.html, or comparison.html)"
    )


def run(args: argparse.Namespace) -> int:
    """Makes the page and prints where it is."""
    from job.report.compare import compare_html
    from job.report.run import load_run

    places = [_place(name, args.runs) for name in args.run_names]
    runs = [load_run(open_storage(root), name) for root, name in places]
    if len(runs) > 1:
        page, out = compare_html(runs), args.out or "comparison.html"
    else:
        (root, name), out = places[0], args.out
        page = _again(f"{root}/{name}", name)
        if out is None:
            open_storage(f"{root}/{name}").write("report.html", page.encode())
            print(f"{root}/{name}/report.html")
            return 0
    try:
        Path(out).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    print(out)
    return 0


def _place(name: str, runs: str) -> tuple[str, str]:
    """The root and the name of a run."""
    address = name.rstrip("/") if "/" in name else f"{runs.rstrip('/')}/{name}"
    root, _, last = address.rpartition("/")
    return root, last


def _again(address: str, name: str) -> str:
    """The full report, with the network from the run's last checkpoint."""
    say("loading the network")
    from job import checkpoint, run
    from job.predict import trained
    from job.report.build import build_report

    folder = open_storage(address)
    wanted = settings.from_yaml(folder.read(run.CONFIG), f"{address}/{run.CONFIG}")
    found = checkpoint.load_newest(folder, say)
    if found is None:
        raise UserError(f"{address}: no checkpoint, so no network to explain; the run must be trained again")
    import json

    evaluation = json.loads(folder.read(run.EVALUATION))
    model = trained(wanted, found[1])
    return build_report(wanted, folder, name, model, evaluation, run.summary(folder) or {})
