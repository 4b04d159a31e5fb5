"""Print the resolved settings as YAML."""

import argparse

from job import settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG and --set."""
    settings.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Prints them."""
    print(settings.load(args.config, args.set).to_yaml(), end="")
    return 0
