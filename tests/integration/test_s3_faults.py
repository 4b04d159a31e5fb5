"""What breaks on the way to and from an S3 store, and what becomes of it: the right bytes, or one line that names the
object and the cause. Faults come from a proxy before a real server."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from job.errors import UserError
from job.s3 import S3Storage
from job.s3_client import Patience
from job.storage import ChangedFile, read_many
from tests.s3_proxy import Answer, Fault, Proxy, Request, flip, replace_body, resized, without_header
from tests.s3_server import S3Server

QUICK = Patience(connect=1, silence=0.5, body=0.5, rate=1e6, attempts=4, pause=0.01, check=5)
DATA = random.Random(4).randbytes(40_000)


@pytest.fixture
def proxy(s3: S3Server, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def storage(s3_root: str, proxy: Proxy) -> S3Storage:
    made = S3Storage(s3_root, QUICK)
    made.check()
    return made


def times(count: float, fault: Fault, method: str = "GET", part: str = "/f") -> Callable[[Request], Fault | None]:
    """The fault for the first `count` requests of that method whose path ends so."""
    lock, left = threading.Lock(), [count]

    def decide(request: Request) -> Fault | None:
        with lock:
            if request.method != method or not request.path.endswith(part) or left[0] <= 0:
                return None
            left[0] -= 1
            return fault

    return decide


def no_checksums(change: Callable[[Answer], Answer]) -> Callable[[Answer], Answer]:
    """The change, on a store that keeps no checksums: nothing but the ETag tells."""
    return lambda answer: change(without_header("x-amz-checksum-crc32")(answer))


PASSING = {
    "503": Fault(refuse=(503, "SlowDown")),
    "500": Fault(refuse=(500, "InternalError")),
    "reset": Fault(reset=True),
    "hang": Fault(hang=True),
    "cut off": Fault(keep=17_000),
    "hang within": Fault(change=lambda answer: Answer(answer.status, answer.head, answer.body[:9])),
    "drip": Fault(drip=0.01),
    "flipped byte": Fault(change=flip(1234)),
    "flipped byte, no checksum": Fault(change=no_checksums(flip(1234))),
    "cut off with a length that fits": Fault(change=lambda answer: resized(answer, answer.body[:5000])),
}


@pytest.mark.parametrize("what", PASSING)
def test_a_fault_that_passes_costs_time_only(storage: S3Storage, proxy: Proxy, what: str):
    storage.write("f", DATA)
    proxy.fault = times(2, PASSING[what])
    assert storage.read("f") == DATA
    assert proxy.count("GET", "/f") == 3


LASTING = {
    "503": "asks to slow down",
    "500": "the store failed",
    "reset": "it closed the connection",
    "hang": "it went silent",
    "cut off": "4 attempts failed; at the last: (cut off|the connection broke)",
    "drip": "4 attempts failed; at the last: it went silent",
    "flipped byte": "4 attempts failed; at the last: the checksum does not match",
    "flipped byte, no checksum": "4 attempts failed; at the last: the content does not match its ETag",
}


@pytest.mark.parametrize("what", LASTING)
def test_a_fault_that_lasts_ends_with_the_object_and_the_cause(storage: S3Storage, proxy: Proxy, what: str):
    storage.write("f", DATA)
    proxy.fault = times(float("inf"), PASSING[what])
    with pytest.raises(UserError, match=f"^{storage.url}/f: .*{LASTING[what]}") as caught:
        storage.read("f")
    assert "\n" not in str(caught.value)
    assert proxy.count("GET", "/f") == 4


def test_listing_and_writing_survive_a_busy_store(storage: S3Storage, proxy: Proxy):
    proxy.fault = times(2, PASSING["503"], "PUT")
    storage.write("f", DATA)
    proxy.fault = times(2, PASSING["500"], "GET", proxy.requests[0].path)
    assert [entry.path for entry in storage.entries()] == ["f"]


def test_an_object_changed_under_the_reader_is_named_even_if_the_store_ignores_conditions(
    storage: S3Storage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
):
    storage.write("f", DATA)
    (entry,) = storage.entries()
    storage.write("f", DATA[::-1])
    _drop_header(storage, "GetObject", "If-Match")
    with pytest.raises(ChangedFile, match=f"^{storage.url}/f: changed since it was listed"):
        list(read_many(storage, [entry]))


def test_a_name_that_would_leave_the_cache_is_refused_in_the_listing(storage: S3Storage, proxy: Proxy):
    storage.write("CT_COVID/__/__/escape.png", DATA)
    proxy.fault = lambda _: Fault(change=replace_body(b"__/__", b"../.."))
    with pytest.raises(UserError, match=r"CT_COVID/\.\./\.\./escape\.png.*refused"):
        list(storage.entries())


def test_credentials_that_expire_end_with_a_line(storage: S3Storage, proxy: Proxy):
    storage.write("f", DATA)
    proxy.fault = lambda _: Fault(refuse=(400, "ExpiredToken"))
    with pytest.raises(UserError, match="the credentials have expired; renew them"):
        storage.read("f")


def test_credentials_renewed_in_the_profile_are_taken_up(
    s3: S3Server, s3_root: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An agent outside rewrites `~/.aws/credentials` during a long run."""
    valid = s3.environment()
    profile = tmp_path / "credentials"
    lines = "[default]\naws_access_key_id={AWS_ACCESS_KEY_ID}\naws_secret_access_key={AWS_SECRET_ACCESS_KEY}\n"
    profile.write_text(lines.format(**valid) + "aws_session_token=old\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refuse_old = Fault(refuse=(400, "ExpiredToken"))
    storage = S3Storage(s3_root, QUICK)
    profile.write_text(lines.format(**valid))
    storage.write("f", DATA)
    profile.write_text(lines.format(**valid))
    proxy.fault = times(1, refuse_old)
    assert storage.read("f") == DATA


def test_an_answer_lost_after_the_commit_is_not_taken_for_a_rival(storage: S3Storage, proxy: Proxy):
    """boto3 repeats the PUT, and the store says that somebody was first: the writer itself."""
    proxy.fault = times(1, Fault(lose_answer=True), "PUT", "MANIFEST.json")
    assert storage.write_bundle("b", {"f": DATA})
    assert storage.read_bundle("b") == {"f": DATA}


def test_a_commit_that_fails_for_good_leaves_no_half_of_a_bundle(storage: S3Storage, proxy: Proxy):
    proxy.fault = times(float("inf"), PASSING["500"], "PUT", "MANIFEST.json")
    with pytest.raises(UserError, match="the store failed"):
        storage.write_bundle("b", {"f": DATA})
    proxy.fault = lambda _: None
    assert storage.bundles() == []
    storage.sweep()
    assert list(storage.entries()) == []


def test_blobs_that_fail_for_good_are_removed(storage: S3Storage, proxy: Proxy):
    proxy.fault = times(float("inf"), PASSING["500"], "PUT", "/two")
    with pytest.raises(UserError, match="/two: the store failed"):
        storage.write_bundle("b", {"one": DATA, "two": DATA})
    proxy.fault = lambda _: None
    assert list(storage.entries()) == []


def test_amazons_conflict_is_tried_again(storage: S3Storage, proxy: Proxy):
    proxy.fault = times(2, Fault(refuse=(409, "ConditionalRequestConflict")), "PUT", "MANIFEST.json")
    assert storage.write_bundle("b", {"f": DATA})


@pytest.mark.parametrize("how", ["ignores the header", "refuses the header"])
def test_without_conditional_writes_exactly_one_still_wins(s3_root: str, proxy: Proxy, how: str):
    if how == "refuses the header":
        proxy.fault = lambda request: (
            Fault(refuse=(501, "NotImplemented")) if "if-none-match" in request.headers else None
        )
    writers = [S3Storage(s3_root, QUICK) for _ in range(4)]
    for writer in writers:
        writer.check()
        if how == "ignores the header":
            _drop_header(writer, "PutObject", "If-None-Match")
    for bundle in range(3):
        barrier = threading.Barrier(len(writers))

        def write(number: int, bundle: int = bundle, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return writers[number].write_bundle(f"b{bundle}", {"who": str(number).encode()})

        with ThreadPoolExecutor(len(writers)) as pool:
            won = list(pool.map(write, range(len(writers))))
        assert won.count(True) == 1
        assert writers[0].read_bundle(f"b{bundle}") == {"who": str(won.index(True)).encode()}
    assert not writers[0].write_bundle("b0", {"who": b"late"})
    assert not [entry.path for entry in writers[0].entries() if "/.claim" in entry.path or "/.probe" in entry.path]


def test_a_dead_writers_claim_blocks_until_it_is_swept(storage: S3Storage, proxy: Proxy):
    _drop_header(storage, "PutObject", "If-None-Match")
    storage.write("b/.claim-dead", b"")
    with pytest.raises(UserError, match="another writer is at work or has died there"):
        storage.write_bundle("b", {"f": DATA})
    assert storage.bundles() == []
    storage.sweep()
    assert storage.write_bundle("b", {"f": DATA})


def test_one_probe_per_storage(storage: S3Storage, proxy: Proxy):
    for name in ("a", "b", "c"):
        assert storage.write_bundle(name, {"f": DATA})
    assert proxy.count("PUT", "/.probe-") == 2


def test_reading_many_objects_hides_the_delay(storage: S3Storage, proxy: Proxy):
    """Not how fast it is, but that requests overlap: 64 of them with half a second each, in far fewer half seconds."""
    for index in range(64):
        storage.write(f"f{index}", b"x")
    at_work, most, lock = [0], [0], threading.Lock()
    entries = list(storage.entries())
    original = storage._objects.get

    def counted(*args: Any) -> bytes:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        try:
            time.sleep(0.05)
            return original(*args)
        finally:
            with lock:
                at_work[0] -= 1

    storage._objects.get = counted  # type: ignore[method-assign]
    assert len(list(read_many(storage, entries))) == 64
    assert most[0] == storage.threads


def _drop_header(storage: S3Storage, operation: str, header: str) -> None:
    """As if the store did not know the header: it is taken out before the request is signed."""

    def drop(request: Any, **_: Any) -> None:
        del request.headers[header]  # no error if it is not there

    storage._objects.client().meta.events.register(f"before-sign.s3.{operation}", drop)
