"""S3 over HTTPS with a certificate from a CA of one's own: `AWS_CA_BUNDLE` is all it takes."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.arrow import pyarrow_filesystem
from job.errors import UserError
from job.storage import open_storage
from tests.s3_proxy import Proxy
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `key.pem` and `cert.pem`, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -keyout key.pem -out cert.pem"
    subject = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *subject], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def proxy(s3: S3Server, s3_root: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with Proxy(s3.endpoint, tls=context) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def test_a_certificate_that_is_not_trusted_is_said(proxy: Proxy, s3_root: str):
    with pytest.raises(UserError, match=f"^{s3_root}: the endpoint's certificate is not trusted; set AWS_CA_BUNDLE"):
        open_storage(s3_root).check()


def test_with_the_ca_everything_works(
    proxy: Proxy, s3_root: str, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Over HTTPS, boto3 sends contents in another way than over HTTP: in chunks, with the checksum behind them."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate / "cert.pem"))
    storage = open_storage(s3_root)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 20_000)
    assert storage.write_bundle("b", {"small": b"1", "large": tmp_path / "large", "empty": b""})
    assert not storage.write_bundle("b", {"small": b"2"})
    assert storage.read_bundle("b")["large"] == (tmp_path / "large").read_bytes()
    storage.delete("b")
    assert list(storage.entries()) == []


def test_arrow_trusts_the_same_ca(proxy: Proxy, s3_root: str, certificate: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate / "cert.pem"))
    filesystem, path = pyarrow_filesystem(s3_root)
    with filesystem.open_output_stream(f"{path}/f") as file:
        file.write(b"1")
    assert open_storage(s3_root).read("f") == b"1"
