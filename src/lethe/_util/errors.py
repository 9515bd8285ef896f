"""Errors that a command reports in one line, each with its own exit code."""


class UserError(Exception):
    """The input is wrong: the message names the key or file, the value, and what is accepted. Exit code 2, nothing written."""


class RunFailed(Exception):
    """A run that started correctly failed: the message says where, and what to do. Exit code 1."""


class Diverged(RunFailed):
    """A loss became NaN or infinite; the message names phase, epoch and step."""


class InsufficientData(Exception):
    """A measure needs more images or models than exist; the message says how many, and is shown in place of the value."""
