"""serve a model's versions over REST and gRPC

`tensorflow_model_server` is used where it is on PATH; elsewhere a built-in server stands in for it, with its routes,
formats and update protocol. SIGTERM ends what has begun and then the server.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from job.console import say
from job.errors import UserError
from job.imports import import_tensorflow

TF_SERVING = "tensorflow_model_server"


def arguments(parser: argparse.ArgumentParser) -> None:
    """See `job.console.Command`."""
    parser.add_argument(
        "--models", type=Path, required=True, metavar="ROOT", help="the folder that holds NAME/1, NAME/2, ..."
    )
    parser.add_argument("--name", default="covid_ct", help="the model's name (%(default)s)")
    parser.add_argument("--rest-port", type=int, default=8501, help="%(default)s; 0 takes a free one")
    parser.add_argument("--grpc-port", type=int, default=8500, help="%(default)s; 0 takes a free one")
    own = parser.add_argument_group("the built-in server only")
    own.add_argument("--built-in", action="store_true", help=f"use it even where {TF_SERVING} is on PATH")
    own.add_argument("--host", default="127.0.0.1", help="the address to serve at (%(default)s)")
    own.add_argument("--poll-seconds", type=float, default=1.0, help="how often to look for versions (%(default)s)")
    own.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="requests computed at once (%(default)s)")
    own.add_argument("--queue", type=int, default=64, help="requests under way or waiting (%(default)s)")
    own.add_argument("--max-body", type=int, default=128, metavar="MIB", help="the largest request (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """See `job.console.Command`."""
    if not (args.models / args.name).is_dir():
        raise UserError(
            f"{args.models / args.name}: no such folder; it should hold the versions of {args.name}, as 1, 2, ..."
        )
    program = None if args.built_in else shutil.which(TF_SERVING)
    if program:
        command = tf_serving_command(program, args.models, args.name, args.rest_port, args.grpc_port)
        say(f"handing over to {' '.join(command)}")
        os.execv(program, command)
    # TensorFlow's own log is about the machine (no GPU, and so on); what goes wrong comes as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import_tensorflow()
    from serving.server import Options, serve

    serve(
        Options(
            models=args.models,
            name=args.name,
            host=args.host,
            rest_port=args.rest_port,
            grpc_port=args.grpc_port,
            poll_seconds=args.poll_seconds,
            threads=args.threads,
            queue=args.queue,
            max_body=args.max_body * 1024 * 1024,
        ),
        say,
    )
    return 0


def tf_serving_command(program: str, models: Path, name: str, rest_port: int, grpc_port: int) -> list[str]:
    """The command line of TF Serving for one model."""
    return [
        program,
        f"--model_name={name}",
        f"--model_base_path={(models / name).absolute()}",
        f"--rest_api_port={rest_port}",
        f"--port={grpc_port}",
        "--enable_grpc_healthcheck_service=true",
    ]
