"""Write sample scans: drawings that look a little like CT slices."""

import argparse
from pathlib import Path

from job.console import say
from job.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """DIR, --per-class and --seed."""
    parser.add_argument("dir", metavar="DIR", help="a folder; class folders are made below it")
    parser.add_argument("--per-class", type=int, default=300, metavar="N", help="scans of each class (default: 300)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="other drawings for another number (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes them."""
    if args.per_class < 1 or args.seed < 0:
        raise UsageError("--per-class must be at least 1, and --seed at least 0")
    folder = Path(args.dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder; name a new one")
    from job.sample import draw
    from job.storage import LocalStorage

    storage, written = LocalStorage(folder), 0
    for drawing in draw(args.per_class, args.seed):
        storage.write(drawing.path, drawing.data)
        written += 1
    say(f"wrote {written} drawn scans to {folder} (drawings, not patients)")
    return 0
