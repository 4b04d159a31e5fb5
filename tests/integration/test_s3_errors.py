"""What a user sees of an S3 store that cannot be used: which thing is wrong, in one line, within 15 seconds."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.errors import UserError
from job.storage import open_storage
from tests.s3_proxy import Fault, Proxy, replace_body
from tests.s3_server import BUCKET, READER_KEY, READER_SECRET, SECRET, S3Server


@pytest.fixture
def proxy(s3: S3Server, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def message_of(url: str) -> str:
    """The line that opening and listing ends with; it must come in time, name the place, and hold no secret."""
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_storage(url).check()
    assert time.monotonic() - started < 15
    message = str(caught.value)
    assert message.startswith(url)
    assert "\n" not in message
    assert SECRET not in message
    return message


def test_a_missing_bucket(s3_root: str):
    assert "there is no bucket covid-ct-missing" in message_of("s3://covid-ct-missing/data")


def test_a_wrong_key(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "does not know the access key" in message_of(s3_root)


def test_a_wrong_secret(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET + "-not")
    assert "the secret is not that of the access key" in message_of(s3_root)


def test_no_credentials(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in message_of(s3_root)


def test_an_unknown_profile(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "none-such")
    assert "AWS_PROFILE" in message_of(s3_root)


@pytest.mark.parametrize("told", [True, False])
def test_a_wrong_region(proxy: Proxy, s3_root: str, told: bool):
    """SeaweedFS takes any region; the answer is the one that Amazon S3 and MinIO document."""
    proxy.fault = lambda _: Fault(refuse=(400, "AuthorizationHeaderMalformed"))
    if told:
        region = b"<Code>NoSuchBucket</Code>", b"<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region>"
        proxy.fault = lambda _: Fault(change=replace_body(*region))
        assert "wrong region; set AWS_REGION=eu-west-3" in message_of("s3://covid-ct-missing/x")
    else:
        assert "wrong region; set AWS_REGION" in message_of(s3_root)


def test_a_port_where_nobody_listens(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert "the endpoint cannot be reached" in message_of(s3_root)


def test_a_name_that_does_not_exist(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:pass-4712@store.invalid:9000")
    message = message_of(s3_root)
    assert "the endpoint cannot be reached" in message
    assert "4712" not in message


def test_an_endpoint_that_accepts_and_says_nothing(proxy: Proxy, s3_root: str):
    proxy.fault = lambda _: Fault(hang=True)
    assert "the endpoint cannot be reached (no answer in time)" in message_of(s3_root)


def test_an_endpoint_that_is_no_url(s3_root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    assert "AWS_ENDPOINT_URL is not a URL" in message_of(s3_root)


def test_an_endpoint_that_is_some_other_web_server(proxy: Proxy, s3_root: str):
    proxy.fault = lambda _: Fault(change=lambda answer: replace_body(answer.body, b"<html>Welcome")(answer))
    assert "is AWS_ENDPOINT_URL that of an S3 store?" in message_of(s3_root)


def test_a_certificate_that_is_not_trusted(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                    context.wrap_socket(connection, server_side=True).close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.getsockname()[1]}")
        assert "set AWS_CA_BUNDLE" in message_of(s3_root)
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_write_without_permission(s3: S3Server, s3_root: str, monkeypatch: pytest.MonkeyPatch):
    s3.client().put_object(Bucket=BUCKET, Key=f"{s3_root.split('/')[-1]}/f", Body=b"1")
    for name, value in s3.environment(READER_KEY, READER_SECRET).items():
        monkeypatch.setenv(name, value)
    storage = open_storage(s3_root)
    assert [storage.read(entry.path, entry) for entry in storage.entries()] == [b"1"]
    for use in (lambda: storage.write("g", b""), lambda: storage.write_bundle("b", {"f": b""})):
        with pytest.raises(UserError, match="the credentials do not allow this"):
            use()


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://key:secret@host/x", "s3://b/../x", "gs://b/x"])
def test_an_address_that_is_none(url: str):
    with pytest.raises(UserError) as caught:
        open_storage(url)
    assert "key:secret" not in str(caught.value)


def test_logs_hold_no_secret(s3_root: str, caplog: pytest.LogCaptureFixture):
    """Not even with everything logged that our own code and its libraries log at INFO."""
    caplog.set_level(logging.INFO)
    open_storage(s3_root).write("f", b"1")
    assert SECRET not in caplog.text
