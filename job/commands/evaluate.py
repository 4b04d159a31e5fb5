"""Score an exported version on a data set.

The scans are catalogued and split as the version's own run did, so that `--split test` on the data it was trained on
gives its evaluation again. On other data every part is new to it: `--split all` takes all scans there are.
"""

import argparse
import json
from pathlib import Path

from job.console import say
from job.errors import UserError
from job.scan import PARTS


def arguments(parser: argparse.ArgumentParser) -> None:
    """VERSION_DIR, ROOT, --split and --json."""
    parser.add_argument("version", type=Path, metavar="VERSION_DIR", help="an exported version: models/covid_ct/1")
    parser.add_argument("root", metavar="ROOT", help="a folder or s3://bucket/prefix with the class folders")
    parser.add_argument("--split", choices=[*PARTS, "all"], default="test", help="which part is scored (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write evaluation.json there")


def run(args: argparse.Namespace) -> int:
    """Scores it and prints a table."""
    from job.score import score_version

    evaluation = score_version(args.version, args.root, args.split)
    if args.json:
        try:
            args.json.write_text(
                json.dumps(evaluation, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8"
            )
        except OSError as error:
            raise UserError(f"{args.json}: cannot be written: {error.strerror}") from error
    say(f"{evaluation['n']} scans of {evaluation['groups']} groups, part {evaluation['part']}; 95% intervals")
    for name, figure in evaluation["metrics"].items():
        value, low, high = (figure[key] for key in ("value", "low", "high"))
        shown = "not defined" if value is None else f"{value:.3f}"
        print(f"{name:18} {shown}" + ("" if low is None else f"  {low:.3f} to {high:.3f}"))
    shortcut = evaluation["shortcut"]["auc"]["value"]
    print(f"{'shortcut auc':18} " + ("not defined" if shortcut is None else f"{shortcut:.3f}") + "  (no pixel seen)")
    return 0
