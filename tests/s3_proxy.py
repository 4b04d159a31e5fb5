"""A proxy before an S3 server that delays, refuses, breaks off, drips or falsifies what passes. For tests.

Requests are passed on as they come, `Host` included, so that their signatures hold. As a program it only delays:
`python tests/s3_proxy.py http://127.0.0.1:8333 0.05` prints its own endpoint and runs until it is ended.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def path(self) -> str:
        """`/bucket/key`, decoded."""
        return unquote(urlsplit(self.target).path)


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    head: bytes
    body: bytes


@dataclass(frozen=True)
class Fault:
    """What to do to one request. Without any field, it passes unharmed."""

    delay: float = 0
    """Seconds before it is passed on."""
    refuse: tuple[int, str] | None = None
    """Not passed on: this status and S3 error code instead."""
    reset: bool = False
    """Not passed on: the connection is closed."""
    hang: bool = False
    """Not passed on: nothing happens until the client gives up."""
    change: Callable[[Answer], Answer] | None = None
    """Applied to the answer."""
    keep: int | None = None
    """Only so many bytes of the body are sent, then the connection is closed."""
    drip: float = 0
    """Seconds between two bytes of the body."""
    lose_answer: bool = False
    """Passed on, but the connection is closed instead of answering."""


def flip(at: int) -> Callable[[Answer], Answer]:
    """Turns over one bit of the body's byte `at`."""

    def change(answer: Answer) -> Answer:
        body = bytearray(answer.body)
        body[at] ^= 1
        return replace(answer, body=bytes(body))

    return change


def replace_body(old: bytes, new: bytes) -> Callable[[Answer], Answer]:
    """Replaces bytes in the body, which may change its length."""
    return lambda answer: resized(answer, answer.body.replace(old, new))


def without_header(name: str) -> Callable[[Answer], Answer]:
    """Removes a header of the answer."""

    def change(answer: Answer) -> Answer:
        lines = answer.head.split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(name.lower().encode() + b":")]
        return replace(answer, head=b"\r\n".join(kept))

    return change


def resized(answer: Answer, body: bytes) -> Answer:
    """The answer with another body and the length that goes with it."""
    head = re.sub(rb"(?i)content-length: *\d+", b"Content-Length: %d" % len(body), answer.head)
    return replace(answer, head=head, body=body)


@dataclass
class Proxy:
    """Runs in a thread of its own within a `with`. `fault` decides, request by request; it may be changed any time."""

    upstream: str
    fault: Callable[[Request], Fault | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    """All that came, in order."""
    endpoint: str = ""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def count(self, method: str, part: str = "") -> int:
        """How many requests of a method came whose path holds `part`."""
        return sum(each.method == method and part in each.path for each in self.requests)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, headers = _parse(head)
                if "expect" in headers:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = re.sub(rb"(?im)^expect:.*\r\n", b"", head)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Request(method, target, headers)
                self.requests.append(request)
                fault = self.fault(request) or Fault()
                await asyncio.sleep(fault.delay)
                if fault.hang:
                    await reader.read()
                if fault.reset or fault.hang:
                    return
                if fault.refuse:
                    writer.write(_refusal(*fault.refuse))
                    continue
                if upstream is None:
                    address = urlsplit(self.upstream)
                    upstream = await asyncio.open_connection(address.hostname, address.port)
                upstream[1].write(head + body)
                answer = await _read_answer(upstream[0], method)
                if fault.lose_answer:
                    return
                if fault.change:
                    answer = fault.change(answer)
                writer.write(answer.head)
                if fault.drip:
                    for at in range(len(answer.body)):
                        writer.write(answer.body[at : at + 1])
                        await writer.drain()
                        await asyncio.sleep(fault.drip)
                else:
                    writer.write(answer.body[: fault.keep])
                    await writer.drain()
                if fault.keep is not None:
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].close()


def _parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return parts[0], parts[1], {name.lower(): value.strip() for name, value in pairs}


async def _read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    _, status, headers = _parse(head)
    if method == "HEAD" or status in ("204", "304"):
        return Answer(int(status), head, b"")
    if "chunked" not in headers.get("transfer-encoding", ""):
        return Answer(int(status), head, await reader.readexactly(int(headers.get("content-length", 0))))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return Answer(
        int(status), re.sub(rb"(?i)transfer-encoding: *chunked", b"Content-Length: %d" % len(body), head), body
    )


def _refusal(status: int, code: str) -> bytes:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>refused</Message></Error>'.encode()
    return (
        b"HTTP/1.1 %d Refused\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"
        % (
            status,
            len(body),
        )
        + body
    )


if __name__ == "__main__":
    with Proxy(sys.argv[1], lambda _, fault=Fault(delay=float(sys.argv[2])): fault) as proxy:  # type: ignore[misc]
        print(proxy.endpoint, flush=True)
        threading.Event().wait()
