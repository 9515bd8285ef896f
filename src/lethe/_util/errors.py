"""Errors that a command reports in one line, each with its own exit code."""

LONGEST = 1600  # characters of a message: a value in it may be a whole file


class _OneLine(Exception):
    """An error whose message is one line, whatever the values in it are: line breaks and terminal codes in them are escaped."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    r"""Return a text as one line of at most LONGEST characters that any terminal and any UTF-8 file takes.

    >>> one_line("run.workspace is a\nb\x1b[31m")
    'run.workspace is a\\nb\\x1b[31m'
    """
    if not text.isprintable():
        text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    half = LONGEST // 2 - 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"  # what is accepted is at the end


class UserError(_OneLine):
    """The input is wrong: the message names the key or file, the value, and what is accepted. Exit code 2, nothing written."""


class RunFailed(_OneLine):
    """A run that started correctly failed: the message says where, and what to do. Exit code 1."""


class Diverged(RunFailed):
    """A loss or a metric became NaN or infinite; the message names it, with phase, epoch and step."""


class InsufficientData(Exception):
    """A measure needs more images or models than exist; the message says how many, and is shown in place of the value."""
