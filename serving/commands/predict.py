"""classify images through a server

Prints a line for each image: its path, the probability of the positive class, and the class it is read as. The class
names and the threshold come from the built-in server, or from the exported version that --about names; without
either, "-" stands for the class.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from job.console import say
from job.errors import UserError
from serving.client import Client, ClientError, GrpcClient, RestClient, read_scan
from serving.errors import Code
from serving.version import VersionInfo, read_version_info

_BATCH = 32


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a PNG or JPEG file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", default="http://127.0.0.1:8501", help="the server's REST address (%(default)s)")
    where.add_argument("--grpc", metavar="HOST:PORT", help="ask over gRPC instead")
    parser.add_argument("--name", default="covid_ct", help="the model's name (%(default)s)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="ask this version instead of the latest")
    which.add_argument("--label", help="ask the version that this label names: stable or canary")
    parser.add_argument("--about", type=Path, metavar="VERSION_DIR", help="take class names and threshold from there")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS", help="for each call (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line instead")


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`. 1 if any image could not be classified; the others are printed all the same."""
    options = {"name": args.name, "version": args.version, "label": args.label, "timeout": args.timeout}
    info = read_version_info(args.about) if args.about else None
    client: Client
    if args.grpc:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        client = GrpcClient(args.grpc, **options)
    else:
        client = rest = RestClient(args.url, **options)
        info = info or rest.about()
    failed = False
    with client:
        for path, outcome in _classify(client, args.images):
            if isinstance(outcome, str):
                failed = True
                say(outcome)
            else:
                print(_line(path, outcome, info, args.json))
    return 1 if failed else 0


def _classify(client: Client, paths: Sequence[Path]) -> Iterator[tuple[Path, float | str]]:
    """Each path with its probability, or with what is wrong with it."""
    for start in range(0, len(paths), _BATCH):
        scans: dict[Path, bytes] = {}
        for path in paths[start : start + _BATCH]:
            try:
                scans[path] = read_scan(path)
            except UserError as error:
                yield path, str(error)
        yield from _ask(client, scans)


def _ask(client: Client, scans: Mapping[Path, bytes]) -> Iterator[tuple[Path, float | str]]:
    """One call for all; where the server refuses it, one for each, to find out which scan it refuses."""
    try:
        for path, probability in zip(scans, client.predict_bytes(list(scans.values())), strict=True):
            yield path, float(probability)
    except ClientError as error:
        if error.code is not Code.INVALID_ARGUMENT:
            raise
        if len(scans) == 1:
            yield next(iter(scans)), f"{next(iter(scans))}: refused by {error}"
            return
        for path, scan in scans.items():
            yield from _ask(client, {path: scan})


def _line(path: Path, probability: float, info: VersionInfo | None, as_json: bool) -> str:
    label = info.label(probability) if info else None
    if as_json:
        content = {"path": str(path), "probability": round(probability, 6), "label": label}
        return json.dumps(content, ensure_ascii=False)
    return f"{path}  {probability:.4f}  {label or '-'}"
