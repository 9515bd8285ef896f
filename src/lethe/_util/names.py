"""What a method, a variant or a run may be called. Such a name becomes part of paths, table rows, plot titles and command lines."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

# Collections of runs, references, and words of the command line: `models/original.safetensors` is the original, whoever wrote it
RESERVED = frozenset({"original", "retrained", "all", "none", "last", "bank", "search", "trial", "reference"})
LONGEST = 64
DIGITS = 18  # of a whole number
ACCEPTED = f"a name takes letters, digits, - and _, does not begin with -, and has at most {LONGEST} characters"

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
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


def as_cell(value: Any) -> Any:
    r"""Return a value as a cell of a CSV file for people: a text that spreadsheets would run as a formula gets a leading apostrophe.

    Files that are read back (splits, epoch tables) hold ids as they are.

    >>> as_cell("=1+1"), as_cell("-a"), as_cell("-0.5"), as_cell(-0.5), as_cell("train/12")
    ("'=1+1", "'-a", '-0.5', -0.5, 'train/12')
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the word that is spelled most like another, for a message.

    >>> nearest("hybrd_4", ["model_1", "hybrid_4"]), nearest("x", [])
    ('hybrid_4', 'none')

    Args:
        word: what was typed.
        words: those that are known.

    Returns:
        One of `words`; "none" where there are none.
    """
    return next(iter(difflib.get_close_matches(word, [*words], 1, 0.0)), "none")


def escape_markdown(text: str) -> str:
    r"""Return a text so that Markdown shows it as it is, on one line.

    >>> escape_markdown("a|b *c*\n<img>")
    'a\\|b \\*c\\* &lt;img\\>'
    """
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]()#|>~$])", r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;"))
