"""The subcommands of `python -m serving`: one module each, with `arguments(parser)` and `run(args)`."""
