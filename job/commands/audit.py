"""Tell what a data set gives away without its pixels, and what is wrong with it.

Duplicates (also rescaled, recompressed or mirrored), patients and papers on two sides of the split, suffixes that lie,
and what a model reaches that sees no pixel; each finding with what to do. With --set data.canonical=true also what that
leaves of it: the same model on the scans as the network then sees them. Where ROOT has split lists (split/) or
*MetaInfo*.csv files with patients, they are used unless --set says otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from job import settings
from job.console import say
from job.errors import UserError
from job.scan import Scan
from job.settings import Data
from job.storage import Storage, open_storage


def arguments(parser: argparse.ArgumentParser) -> None:
    """ROOT, --set, --json, --html and --all."""
    parser.add_argument("root", metavar="ROOT", help="a folder or s3://bucket/prefix, holding one folder per class")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, e.g. data.positive=CT_COVID or data.split=grouped; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--html", metavar="FILE", help="write it as a page too, with the offending scans side by side")
    parser.add_argument("--all", action="store_true", help="name every scan of each finding, not only a few")


def run(args: argparse.Namespace) -> int:
    """Audits it and prints what was found."""
    data, seed = _settings(args.root, args.set)
    from job import catalog
    from job.audit.audit import audit
    from job.audit.text import as_text

    say(f"reading {data.root} (split {data.split}, {_groups(data)})")
    found = catalog.build(data, seed)
    say(f"comparing {len(found.scans)} scans")
    storage = open_storage(data.root)
    left = _canonical(storage, found.scans, seed) if data.canonical else None
    result = audit(
        found.scans,
        storage.read,
        root=data.root,
        split=data.split,
        notices=found.notices,
        canonical=left,
        seed=seed,
    )
    if args.html:
        from job.report.audit import audit_page, offending
        from job.report.pictures import thumbnail

        page = audit_page(result, {path: thumbnail(storage.read(path)) for path in offending(result)})
        try:
            Path(args.html).write_text(page, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{args.html}: cannot be written: {error.strerror}") from error
    if args.json:
        print(json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(as_text(result, every=args.all), end="")
    return 0


def _canonical(storage: Storage, scans: Sequence[Scan], seed: int) -> dict[str, Any]:
    """What the canonical scans still tell, beside what the files tell."""
    say(f"making {len(scans)} scans canonical")
    from job.audit.canonical import before_and_after, decoded
    from job.preprocess import decoder

    decode = decoder(canonical=True)
    return before_and_after(
        scans,
        lambda scan: decode(storage.read(scan.path)).numpy(),
        lambda scan: decoded(storage.read(scan.path)),
        threads=storage.threads,
        seed=seed,
    )


def _settings(root: str, overrides: list[str]) -> tuple[Data, int]:
    """All scans of a root, split as its own lists say if it has any, bad images listed instead of refused."""
    given = {override.partition("=")[0].strip() for override in overrides}
    loaded = settings.load(None, ["data.per_class=null", "data.on_bad_image=skip", *overrides])
    data = dataclasses.replace(loaded.data, root=root)
    storage = open_storage(root)
    if not given & {"data.split", "data.lists"} and any(True for _ in storage.entries("split")):
        data = dataclasses.replace(data, split="published")
    if "data.groups" not in given:
        paths = [entry.path for entry in storage.entries()]
        tables = [path for path in paths if "/" not in path and PurePosixPath(path).match("*MetaInfo*.csv")]
        if tables:
            data = dataclasses.replace(data, groups=tuple(f"{root.rstrip('/')}/{path}" for path in tables))
    return data, loaded.training.seed


def _groups(data: Data) -> str:
    return f"patients from {', '.join(data.groups)}" if data.groups else "patients or papers by file name"
