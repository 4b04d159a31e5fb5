"""The command line of the training job."""

from collections.abc import Sequence

from job import console

COMMANDS = {
    "train": "job.commands.train",
    "config": "job.commands.config",
    "sample": "job.commands.sample",
    "audit": "job.commands.audit",
    "evaluate": "job.commands.evaluate",
    "report": "job.commands.report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code: 0 done, 1 failed, 2 wrong usage or settings."""
    return console.main("covid-ct", "Train, evaluate and export a classifier of CT images.", COMMANDS, argv)
