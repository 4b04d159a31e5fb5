"""The way from an S3 bucket into a worker's cache: each object once, each checked, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from job import catalog
from job.cache import Cache
from job.errors import UserError
from job.settings import Data
from job.storage import LocalStorage, open_storage
from tests.pictures import encode, noise
from tests.s3_proxy import Fault, Proxy, flip
from tests.s3_server import S3Server

NAMES = ["p1-a%0.png", "p2 b.png", "p3+c.png", "p4[1].png", "p5-ö日本.png", "p6%2F%2e.png", "p7&x=1#y.png", "p8?.png"]


@pytest.fixture
def proxy(s3: S3Server, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setenv("COVID_CT_CACHE", str(tmp_path / "cache"))
        yield running


@pytest.fixture
def data(s3_root: str, proxy: Proxy) -> Data:
    """Sixteen scans with awkward names, in S3."""
    storage = open_storage(s3_root)
    for label, name in enumerate(("CT_NonCOVID", "CT_COVID")):
        for index, file in enumerate(NAMES):
            storage.write(f"{name}/{file}", encode(noise(seed=10 * label + index), "PNG"))
    return Data(root=s3_root, per_class=None, split="images", fractions=(0.5, 0.25, 0.25))


def test_a_bucket_and_a_folder_give_the_same_catalog_and_pixels(data: Data, tmp_path: Path):
    storage, folder = open_storage(data.root), LocalStorage(tmp_path / "data")
    for entry in storage.entries():
        folder.write(entry.path, storage.read(entry.path))
    local = Data(root=folder.url, per_class=None, split="images", fractions=data.fractions)
    there, here = catalog.build(data, seed=1), catalog.build(local, seed=1)
    assert there.scans == here.scans
    assert len(there.scans) == 2 * len(NAMES)
    remote, beside = Cache(storage, tmp_path / "one"), Cache(folder, tmp_path / "two")
    for cache in (remote, beside):
        assert cache.fill(there.scans, threads=4) == len(there.scans)
    np.testing.assert_array_equal(remote.read(there.scans), beside.read(there.scans))


def test_a_second_run_transfers_nothing_but_the_listing(data: Data, proxy: Proxy):
    first = catalog.build(data, seed=1)
    assert proxy.count("GET", ".png") == len(first.scans), "the catalog reads every scan once"
    Cache(open_storage(data.root)).fill(first.scans, threads=4)
    proxy.requests.clear()
    second = catalog.build(data, seed=1)
    assert second == first
    assert Cache(open_storage(data.root)).fill(second.scans, threads=4) == 0
    assert proxy.count("GET", ".png") == 0


def test_a_worker_fetches_its_share_only(data: Data, proxy: Proxy, tmp_path: Path):
    scans = catalog.build(data, seed=1).scans
    proxy.requests.clear()
    Cache(open_storage(data.root), tmp_path / "worker").fill(scans[::2], threads=4)
    assert proxy.count("GET", ".png") == len(scans[::2])


def test_a_scan_replaced_after_the_catalog_is_named(data: Data, tmp_path: Path):
    scans = catalog.build(data, seed=1).scans
    open_storage(data.root).write(scans[3].path, encode(noise(seed=99), "PNG"))
    with pytest.raises(UserError, match="changed since the run started") as caught:
        Cache(open_storage(data.root), tmp_path / "worker").fill(scans, threads=4)
    assert f"{data.root}/{scans[3].path}" in str(caught.value)


def test_bytes_that_change_on_the_way_never_reach_a_batch(data: Data, proxy: Proxy, tmp_path: Path):
    """Every first transfer of every scan arrives with a bit turned over."""
    scans = catalog.build(data, seed=1).scans
    clean, broken = Cache(open_storage(data.root), tmp_path / "clean"), Cache(open_storage(data.root), tmp_path / "b")
    clean.fill(scans, threads=4)
    met: set[str] = set()

    def once(request: object) -> Fault | None:
        path = getattr(request, "path", "")
        if not path.endswith(".png") or path in met:
            return None
        met.add(path)
        return Fault(change=flip(700))

    proxy.fault = once
    assert broken.fill(scans, threads=4) == len(scans)
    assert len(met) == len(scans)
    np.testing.assert_array_equal(broken.read(scans), clean.read(scans))
