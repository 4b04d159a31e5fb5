"""The errors that are a user's to mend: one line each, never a traceback."""


class UserError(Exception):
    """What is wrong, where, and what to write instead, in one line. The command exits with `exit_code`."""

    exit_code = 1


class UsageError(UserError):
    """A wrong argument or setting, found before anything was done."""

    exit_code = 2
