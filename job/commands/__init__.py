"""The subcommands of `python -m job`: one module each, with `arguments(parser)` and `run(args)`."""
