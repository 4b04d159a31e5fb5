"""The command line of serving."""

from collections.abc import Sequence

from job import console

COMMANDS = {
    "run": "serving.commands.run",
    "predict": "serving.commands.predict",
    "publish": "serving.commands.publish",
    "pull": "serving.commands.pull",
    "promote": "serving.commands.promote",
    "rollback": "serving.commands.rollback",
    "versions": "serving.commands.versions",
    "check": "serving.commands.check",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code: 0 done, 1 failed, 2 wrong usage or settings."""
    return console.main("covid-ct-serving", "Serve exported versions, move them, and ask them.", COMMANDS, argv)
