"""TF Serving's REST API, and the page for people, as an aiohttp application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Handler
from google.protobuf import json_format

from serving import json_tensor, service
from serving.errors import Code, ServingError, invalid
from serving.repository import Repository
from serving.service import Which
from serving.workers import Ticket, Workers

# The routes of https://www.tensorflow.org/tfx/serving/api_rest; names and labels may hold anything but "/" and ":".
_MODEL = r"/v1/models/(?P<name>[^/:]+)"
_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(rf"{_MODEL}{_WHICH}:(?P<method>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_LOOK = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?:/(?P<part>metadata))?", re.IGNORECASE | re.ASCII)

_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src blob: data:"
)

_UNREAD_SECONDS = 0.2
"""In this time a stop reads the requests that have arrived before it."""

_BODY_SECONDS = 60
"""A body that takes longer to arrive is given up: it holds a place in the queue."""


class UnderWay:
    """Counts the requests that have begun, so that a stop can wait for them.

    aiohttp's own shutdown waits for handlers but drops what is still arriving, and with it every upload.
    """

    def __init__(self) -> None:
        self._count = 0
        self._stopping = False
        self._idle = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Waits until no request is under way, but not longer than that; connections are not kept from now on."""
        self._stopping = True
        await asyncio.sleep(_UNREAD_SECONDS)
        if self._count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """aiohttp's middleware."""
        self._count += 1
        try:
            response = await handler(request)
            if self._stopping:
                response.force_close()
            return response
        finally:
            self._count -= 1
            if self._stopping and not self._count:
                # The response is written after this.
                asyncio.get_running_loop().call_later(0.1, self._idle.set)


def application(repository: Repository, workers: Workers, max_body: int, under_way: UnderWay) -> web.Application:
    """The application; bodies have at most `max_body` bytes."""
    api = _Api(repository, workers, max_body)
    app = web.Application(middlewares=[under_way.count])
    app.router.add_get("/", _page)
    app.router.add_get("/versions.json", api.versions)
    app.router.add_route("*", "/{path:.*}", api.handle)
    return app


class _Api:
    def __init__(self, repository: Repository, workers: Workers, max_body: int) -> None:
        self._repository = repository
        self._workers = workers
        self._max_body = max_body

    async def versions(self, _: web.Request) -> web.Response:
        """What the page needs to know: the versions that answer, newest first, and what a version says of itself."""
        labels = self._repository.labels()
        versions = [
            {
                "version": number,
                "labels": sorted(label for label, labelled in labels.items() if labelled == number),
                "positive": info.positive,
                "negative": info.negative,
                "threshold": info.threshold,
                "run": info.run.get("name", ""),
            }
            for number, info in self._repository.available().items()
        ]
        return web.json_response({"name": self._repository.name, "versions": versions})

    async def handle(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        if not path.lower().startswith("/v1/"):
            return web.Response(status=404, text="Not Found\n")
        if request.method == "OPTIONS":
            return web.Response(status=200 if re.search("https?://", request.headers.get("Origin", "")) else 400)
        try:
            text = await self._answer(request, path)
            return web.Response(text=text, content_type="application/json")
        except ServingError as error:
            return _error(error.code.http, error.message)
        except web.HTTPRequestEntityTooLarge as error:
            return _error(error.status, error.text or "")

    async def _answer(self, request: web.Request, path: str) -> str:
        found = {"POST": _CALL, "GET": _LOOK}.get(request.method, _CALL).fullmatch(path)
        method = found.groupdict().get("method") if found else None
        if not found or request.method not in ("POST", "GET") or (method and not method.islower()):
            raise invalid(f"Malformed request: {request.method} {path}")
        which = _which(found)
        if request.method == "GET":
            return await asyncio.to_thread(self._look, which, found["part"])
        with self._workers.ticket() as ticket:
            body = await self._body(request, ticket)
            return await ticket.run(lambda: self._call(request, which, found["method"], body))

    def _call(self, request: web.Request, which: Which, method: str, body: bytes) -> str:
        if request.transport is None or request.transport.is_closing():
            raise ServingError(Code.CANCELLED, "the client has gone away")
        return call(self._repository, which, method, body)

    def _look(self, which: Which, part: str | None) -> str:
        if not which.name:
            raise invalid("Missing model name in request.")
        if part != "metadata":
            return str(
                json_format.MessageToJson(
                    service.status(self._repository, which), always_print_fields_with_no_presence=True
                )
            )
        response, signatures = service.metadata(self._repository, which)
        return json.dumps(
            {"model_spec": _to_dict(response.model_spec), "metadata": {"signature_def": _to_dict(signatures)}}, indent=1
        )

    async def _body(self, request: web.Request, ticket: Ticket) -> bytes:
        if (request.content_length or 0) > self._max_body:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.content.iter_any():
                    if len(body) + len(chunk) > self._max_body:
                        raise self._too_large()
                    ticket.take(len(chunk))
                    body += chunk
        except TimeoutError as error:
            raise ServingError(Code.DEADLINE_EXCEEDED, f"the body did not arrive in {_BODY_SECONDS} s") from error
        except ConnectionError as error:
            raise ServingError(Code.CANCELLED, "the client has gone away") from error
        except web.RequestPayloadError as error:
            raise invalid(f"the body cannot be read: {error}") from error
        return bytes(body)

    def _too_large(self) -> web.HTTPRequestEntityTooLarge:
        return web.HTTPRequestEntityTooLarge(
            self._max_body,
            0,
            text=f"the body has more than {self._max_body} bytes; send fewer scans, or send them as b64",
        )


def call(repository: Repository, which: Which, method: str, body: bytes) -> str:
    """The answer to a body that was posted to a method of a model. Blocking. Raises `ServingError`."""
    document = json_tensor.parse(body)
    signature = json_tensor.signature_name(document)
    if method != "predict":
        json_tensor.check_examples(document, method)
    with repository.version(which.version, which.label, which.name) as loaded:
        if method != "predict":
            service.refuse_examples(loaded, signature, method)
        asked = json_tensor.read_predict(
            document,
            service.input_types(loaded, signature),
            plain_numbers=b"true" not in body and b"false" not in body,
        )
        del document
        outputs = service.predict(loaded, signature, asked.inputs)
    return json_tensor.write_predict(outputs, asked.columnar)


def _which(found: re.Match[str]) -> Which:
    version = int(found["version"]) if found["version"] else None
    if version is not None and version >= 2**63:
        raise invalid(f"Failed to convert version: {found['version']} to numeric.")
    return Which(unquote(found["name"] or ""), version, unquote(found["label"]) if found["label"] else None)


def _to_dict(message: Any) -> dict[str, Any]:
    return dict(
        json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )


def _error(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=json_tensor.write_error(message), content_type="application/json")


async def _page(_: web.Request) -> web.Response:
    page = files("serving").joinpath("page.html").read_text(encoding="utf-8")
    return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY})
