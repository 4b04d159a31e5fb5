"""The built-in server: stands in for TF Serving where there is none, with its routes, formats and update protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import tensorflow as tf
from aiohttp import web

from job.errors import UserError
from serving import grpc_api, rest
from serving.model import start_quietly
from serving.repository import Repository
from serving.service import Which
from serving.version import BYTES_SIGNATURE
from serving.warmup import drawn_scans
from serving.workers import Workers

_GRACE_SECONDS = 30
"""How long requests that have begun may take to end when the server is told to stop."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve."""

    models: Path
    """The folder that holds `<name>/<N>`."""
    name: str
    host: str
    rest_port: int
    """0 for any free one."""
    grpc_port: int
    poll_seconds: float
    threads: int
    queue: int
    """Requests under way or waiting; one more is refused with 429 or RESOURCE_EXHAUSTED."""
    max_body: int
    """Bytes of a request; a larger one is refused with 413 or RESOURCE_EXHAUSTED."""


def serve(options: Options, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT, then ends what has begun. `say` gets the log, line by line.

    Raises:
        UserError: nothing to serve, or an address that cannot be had.
    """
    tf.get_logger().setLevel(logging.ERROR)
    start_quietly()
    # What is here before the first version stays: the collector need not look at all of it after each unloading.
    gc.collect()
    gc.freeze()
    folder = options.models / options.name
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold the versions of {options.name}, as 1, 2, ...")
    repository = Repository(options.models, options.name, say)
    repository.poll()
    if not repository.available():
        raise UserError(f"{folder}: no version in it can be served")
    asyncio.run(_serve(options, repository, say))


async def _serve(options: Options, repository: Repository, say: Callable[[str], None]) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    # Bodies of all requests together: a few of the largest, or a queue full of usual ones.
    workers = Workers(options.threads, options.queue, 4 * options.max_body)
    under_way = rest.UnderWay()
    runner = web.AppRunner(rest.application(repository, workers, options.max_body, under_way), access_log=None)
    await runner.setup()
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", options.max_body), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=4 * options.queue,
    )
    grpc_api.add_services(server, repository, workers, options.max_body)
    try:
        await _rehearse(repository, workers, options)
        site, rest_port = await _bind_rest(runner, options.host, options.rest_port)
        grpc_port = _bind_grpc(server, options.host, options.grpc_port)
        await server.start()
        versions = ", ".join(map(str, repository.available()))
        say(
            f"serving {options.name} (version {versions}) at http://{options.host}:{rest_port} "
            f"and grpc {options.host}:{grpc_port}, process {os.getpid()}"
        )
        polling = asyncio.create_task(_poll(repository, options.poll_seconds, say))
        await stopping.wait()
        say("stopping: ending what has begun")
        polling.cancel()
        await site.stop()
        await asyncio.gather(server.stop(_GRACE_SECONDS), under_way.wait(_GRACE_SECONDS))
        with contextlib.suppress(asyncio.CancelledError):
            await polling
    finally:
        await server.stop(None)
        await runner.cleanup()
        await asyncio.to_thread(workers.close)
        repository.close()


async def _rehearse(repository: Repository, workers: Workers, options: Options) -> None:
    """Lets every thread answer some requests before the first real one, which would else pay for their start."""
    instances = [{"b64": base64.b64encode(scan).decode()} for scan in drawn_scans().values()]
    body = json.dumps({"signature_name": BYTES_SIGNATURE, "instances": instances}).encode()

    async def ask() -> None:
        with workers.ticket() as ticket:
            await ticket.run(lambda: rest.call(repository, Which(options.name), "predict", body))

    for _ in range(2):
        await asyncio.gather(*(ask() for _ in range(min(options.threads, options.queue))))


async def _bind_rest(runner: web.AppRunner, host: str, port: int) -> tuple[web.TCPSite, int]:
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot serve REST there: {os.strerror(error.errno or 0)}") from error
    return site, int(runner.addresses[0][1])


def _bind_grpc(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        bound = int(server.add_insecure_port(f"{host}:{port}"))
    except RuntimeError as error:
        raise UserError(
            f"{host}:{port}: cannot serve gRPC there: the address is taken or not this machine's"
        ) from error
    return bound


async def _poll(repository: Repository, seconds: float, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(repository.poll)
        except UserError as error:
            say(str(error))
        except Exception as error:  # whatever it is, the watch must go on
            say(f"looking for versions failed: {error!r}")
