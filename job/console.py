"""What both command lines share: subcommands as modules, user errors as one line, exit codes 0, 1 and 2 (130 and 143
for Ctrl-C and SIGTERM)."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from job.errors import UserError
from job.signals import Terminated


class Command(Protocol):
    """A module that is a subcommand. Importing it must be quick: no TensorFlow, no Ray."""

    __doc__: str | None
    """The first line is the command's help."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Does it; the exit code."""


def main(program: str, about: str, modules: Mapping[str, str], argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand that `argv` names, out of `modules` (name to module path), and returns the exit code."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in modules.items():
        command = cast(Command, importlib.import_module(module))
        summary = (command.__doc__ or "").splitlines()[0]
        child = subparsers.add_parser(
            name, help=summary, description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.arguments(child)
        child.set_defaults(function=command.run)
    args = parser.parse_args(argv)
    # TensorFlow's own notices (no GPU driver found, ...) are not for the user of a command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = int(args.function(args))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{program} {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program} {args.command}: interrupted", file=sys.stderr)
        return 130
    except Terminated:
        print(f"{program} {args.command}: terminated", file=sys.stderr)
        return 143
    except BrokenPipeError:
        # The reader of our output has gone (`... | head`): no fault of the user, and nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def say(line: str) -> None:
    """Progress and notices, for a person: to standard error."""
    print(line, file=sys.stderr, flush=True)
