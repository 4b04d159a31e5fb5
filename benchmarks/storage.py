"""How fast scans come out of an S3 store, against a plain boto3 loop in the same run.

    python benchmarks/storage.py --data /path/to/covid-ct            # all 746 scans, 100,000 keys: some minutes
    python benchmarks/storage.py --scans 100 --keys 2000             # a quick look, on noise instead of scans

A real server (SeaweedFS) on this machine, behind a proxy process that adds 50 ms to each request. Prints a table, and
JSON with --json. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from job.storage import Storage, open_storage, read_many  # noqa: E402  (the checkout first)
from tests.s3_server import BUCKET, S3Server, s3_server  # noqa: E402

DELAY = 0.05  # seconds per request


def main() -> int:
    """Runs it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of scans; without it, noise of the same sizes")
    parser.add_argument("--scans", type=int, default=746)
    parser.add_argument("--keys", type=int, default=100_000, help="for the listing")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server(Path(folder) / "s3") as server:
        os.environ.update(server.environment())
        scans = open_storage(f"s3://{BUCKET}/scans")
        put_all(scans, itertools.islice(contents(args.data), args.scans))
        results = {
            "delayed": measure_delayed(server, args.repeats),
            "direct": measure_direct(scans, args.repeats),
            "listing": measure_listing(args.keys),
        }
    print_table(results)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return 0


def contents(data: Path | None) -> Iterator[tuple[str, bytes]]:
    """Names and contents: the scans in `data`, or noise with sizes like theirs (log-normal, median 60 kB)."""
    if data is not None:
        for path in sorted(each for each in data.rglob("*") if each.suffix.lower() in (".png", ".jpg", ".jpeg")):
            yield path.relative_to(data).as_posix(), path.read_bytes()
        return
    random = np.random.default_rng(0)
    for index in itertools.count():
        yield f"CT_COVID/scan {index}%.png", random.bytes(int(random.lognormal(11, 0.9)))


def put_all(storage: Storage, files: Iterable[tuple[str, bytes]]) -> None:
    """Writes files, some at a time."""
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(lambda file: storage.write(*file), files):
            pass


def measure_delayed(server: S3Server, repeats: int) -> dict[str, Any]:
    """Through the proxy: seconds for all scans, one by one with plain boto3 and as the catalog reads them."""
    with delaying_proxy(server.endpoint) as endpoint:
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        try:
            import boto3

            client = boto3.client("s3")
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="scans/")
            keys = [each["Key"] for page in pages for each in page["Contents"]]

            def plain() -> int:
                return sum(len(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys)

            def ours() -> int:
                storage = open_storage(f"s3://{BUCKET}/scans")  # its first contact and its listing count
                return sum(len(data) for _, data in read_many(storage, storage.entries()))

            read, grown = watched(ours)
            assert read == plain_bytes(client, keys)
            # In turn, so that whatever else the machine does meets both.
            pairs = [(timed(plain), timed(ours)) for _ in range(repeats)]
        finally:
            os.environ["AWS_ENDPOINT_URL"] = server.endpoint
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "scans": len(keys),
        "bytes": read,
        "delay_s": DELAY,
        "plain_boto3_s": slow,
        "read_many_s": fast,
        "times_faster": slow / fast,
        "memory_grown_bytes": grown,
        "largest_scan_bytes": max(entry.size for entry in open_storage(f"s3://{BUCKET}/scans").entries()),
    }


def plain_bytes(client: Any, keys: list[str]) -> int:
    """What the store itself says that the objects hold."""
    return sum(client.head_object(Bucket=BUCKET, Key=key)["ContentLength"] for key in keys)


def measure_direct(storage: Storage, repeats: int) -> dict[str, float]:
    """Without the delay: bytes per second, beside what a bare TCP connection on loopback carries."""
    entries = list(storage.entries())
    size = sum(entry.size for entry in entries)
    seconds = statistics.median(timed(lambda: sum(1 for _ in read_many(storage, entries))) for _ in range(repeats))
    bare = statistics.median(loopback(1 << 30) for _ in range(repeats))
    return {
        "scans_per_second": len(entries) / seconds,
        "bytes_per_second": size / seconds,
        "loopback_bytes_per_second": bare,
        "share_of_loopback": size / seconds / bare,
    }


def measure_listing(keys: int) -> dict[str, Any]:
    """Seconds and memory for listing a quarter, a half and all of so many keys."""
    storage = open_storage(f"s3://{BUCKET}/listing")
    quarter = keys // 4
    parts = (("a/a", quarter), ("a/b", quarter), ("c", keys - 2 * quarter))
    put_all(storage, ((f"{part}/{index:06d}.png", b"") for part, count in parts for index in range(count)))
    found: dict[str, Any] = {}
    for prefix in ("a/a", "a", ""):
        began = time.perf_counter()
        count, grown = watched(lambda prefix=prefix: sum(1 for _ in storage.entries(prefix)))
        seconds = time.perf_counter() - began
        found[str(count)] = {"seconds": seconds, "keys_per_second": count / seconds, "memory_grown_bytes": grown}
    return found


@contextmanager
def delaying_proxy(upstream: str) -> Iterator[str]:
    """The proxy of the tests in a process of its own; its endpoint."""
    command = [sys.executable, "-m", "tests.s3_proxy", upstream, str(DELAY)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def timed(function: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def watched(function: Callable[[], int]) -> tuple[int, int]:
    """The result, and by how many bytes the resident memory of this process grew at most meanwhile."""
    before, most, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = function()
    finally:
        done.set()
        watcher.join()
    return result, max(0, most[0] - before)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def loopback(size: int) -> float:
    """Bytes per second of one TCP connection from a process to itself, read in pieces of 1 MiB."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        block = bytes(1 << 20)

        def send() -> None:
            with socket.create_connection(listener.getsockname()) as sender:
                for _ in range(size // len(block)):
                    sender.sendall(block)

        sender = threading.Thread(target=send)
        sender.start()
        with listener.accept()[0] as receiver:
            began, buffer, received = time.perf_counter(), bytearray(1 << 20), 0
            while count := receiver.recv_into(buffer):
                received += count
        seconds = time.perf_counter() - began
        sender.join()
    assert received == size
    return size / seconds


def print_table(results: dict[str, Any]) -> None:
    """The figures, for a person."""
    delayed, direct = results["delayed"], results["direct"]
    print(f"{delayed['scans']} scans, {delayed['bytes'] / 1e6:.1f} MB, {delayed['delay_s'] * 1e3:.0f} ms per request")
    print(f"  plain boto3, one by one   {delayed['plain_boto3_s']:8.2f} s")
    print(f"  read_many                 {delayed['read_many_s']:8.2f} s   {delayed['times_faster']:.1f} times faster")
    print(
        f"  memory grew by            {delayed['memory_grown_bytes'] / 1e6:8.1f} MB  "
        f"(largest scan {delayed['largest_scan_bytes'] / 1e6:.1f} MB)"
    )
    print("without the delay")
    print(f"  {direct['scans_per_second']:.0f} scans/s, {direct['bytes_per_second'] / 1e6:.0f} MB/s, ", end="")
    print(f"{direct['share_of_loopback']:.1%} of loopback ({direct['loopback_bytes_per_second'] / 1e6:.0f} MB/s)")
    print("listing")
    for count, each in results["listing"].items():
        grown = each["memory_grown_bytes"] / 1e6
        print(f"  {int(count):>7,} keys  {each['seconds']:7.2f} s  {each['keys_per_second']:7.0f}/s  +{grown:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
