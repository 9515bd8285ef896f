"""What a method, a variant or a run may be called. Such a name becomes part of paths, table rows, plot titles and command lines."""

import re

# Collections of runs, references, and words of the command line: `models/original.safetensors` is the original, whoever wrote it
RESERVED = frozenset({"original", "retrained", "all", "none", "last", "bank", "search", "trial", "reference"})
LONGEST = 64
DIGITS = 18  # of a whole number
ACCEPTED = f"a name takes letters, digits, - and _, does not begin with -, and has at most {LONGEST} characters"

_FORM = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_-]{{0,{LONGEST - 1}}}", re.ASCII)


def objection(name: str) -> str | None:
    """Return why a method or variant can't have a name.

    >>> objection("hybrid_4"), objection("../models")[:12]
    (None, 'a name takes')
    >>> objection("Original")
    'original is reserved for what this program makes'

    Returns:
        The reason, for a message; None if the name is fine.
    """
    if not _FORM.fullmatch(name):
        return ACCEPTED
    # Without regard to case, as file systems are
    return f"{name.lower()} is reserved for what this program makes" if name.lower() in RESERVED else None


def is_whole_number(text: str) -> bool:
    """Return whether a text is a whole number as a command line takes one: ASCII digits, so few that `int` reads them.

    >>> is_whole_number("17"), is_whole_number("-1"), is_whole_number("٣"), is_whole_number("9" * 5000)
    (True, False, False, False)
    """
    return text.isascii() and text.isdecimal() and len(text) <= DIGITS


def escape_markdown(text: str) -> str:
    r"""Return a text so that Markdown shows it as it is, on one line.

    >>> escape_markdown("a|b *c*\n<img>")
    'a\\|b \\*c\\* &lt;img\\>'
    """
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]()#|>~$])", r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))
