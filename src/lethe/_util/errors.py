"""The two ways a command ends badly; a stage turns them into one line and an exit code."""


class BadInput(Exception):
    """The user's input is at fault: which key or file, which value, what is accepted. Exit code 2, nothing written."""


class Failed(Exception):
    """A run that began well went wrong: where, and what to do. Exit code 1."""


class Diverged(Failed):
    """A loss became NaN or infinite; names phase, epoch and step."""


class TooFew(Exception):
    """A measure takes more images or models than there are; the message says how many, and is shown in place of the number."""
