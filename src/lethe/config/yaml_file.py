"""YAML files as plain values, within limits: a short text can stand for any amount of memory, and a file need not be one's own."""

from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import is_shell_pipe, read_regular

LARGEST = 500_000  # bytes of a file, 20 times those of params.yaml
MOST = 100_000  # values of a file, each alias counted as what it repeats
DEEPEST = 32  # sections and lists in one another
DIGITS = 40  # of a number
PLAIN = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge")  # what a text without tags can be
TAGS = {f"tag:yaml.org,2002:{kind}" for kind in PLAIN}

_piped: dict[tuple[int, int], str] = {}  # device and inode of a pipe -> its text: it is read once, and a command may load several times


@dataclass(frozen=True)
class _Document:
    """A parsed text: its values, and the node of its outermost mapping, which knows lines."""

    values: Any
    node: Any


class _Refused(ValueError):
    """A text that is YAML, and is not accepted: the reason, and the line from 0."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """Read the sections of a YAML file.

    Args:
        path: the file.
        name: of the file, as shown in messages about its content.

    Returns:
        Values and sections, nested; an empty file has none.

    Raises:
        UserError: it is missing, unreadable, no regular file, too large, not YAML, not a mapping, or has a tag, a key twice, an alias
            of what it is in itself, or aliases that stand for too many values.
    """
    from ruamel.yaml.error import YAMLError

    text = _text(path)
    try:
        tree = deepcopy(_parsed(text).values) or {}
    except _Refused as error:
        raise UserError(f"{name}, line {error.line + 1}: {error}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where, problem = f", line {mark.line + 1}" if mark else "", getattr(error, "problem", None) or "not valid YAML"
        deep = f"sections and lists are more than {DEEPEST} deep in one another"
        raise UserError(f"{name}{where}: {deep if 'depth' in problem else problem}") from None
    except Exception as error:  # what looks like a date or a number and is none: a parser's error is as it comes
        raise UserError(f"{name}: not valid YAML ({str(error)[:200]})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{name}: it takes sections, not {tree!r}")
    return tree


def line_of(path: Path, key: str) -> int | None:
    """Find the line of a key in a file that `read_yaml` has read.

    Args:
        path: the file.
        key: dotted key.

    Returns:
        The line, from 1, of the key or of its innermost parent that exists; None if no part of it exists.
    """
    try:
        node = _parsed(_text(path)).node
    except Exception:  # it has changed since: the message is about another place
        return None
    line = None
    for part in key.split("."):
        pairs = node.value if getattr(node, "id", "") == "mapping" else ()
        found = next(((name, value) for name, value in pairs if str(name.value) == part), None)
        if found is None:
            return line
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _text(path: Path) -> str:
    if not is_shell_pipe(path):
        return _decoded(path)
    pipe = (path.stat().st_dev, path.stat().st_ino)
    if pipe not in _piped:
        _piped[pipe] = _decoded(path)
    return _piped[pipe]


def _decoded(path: Path) -> str:
    try:
        return read_regular(path, LARGEST).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} can't be read: {error}") from None


@lru_cache(maxsize=16)
def _parsed(text: str) -> _Document:
    """Parse YAML; a third of a second for params.yaml, hence once per text. Callers copy what they change."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = DEEPEST
    constructor, _ = yaml.get_constructor_parser(text)
    node = constructor.composer.get_single_node()
    if node is None:
        return _Document(None, None)
    _count(node, {}, [])
    return _Document(constructor.construct_document(node), node)


def _count(node: Any, known: dict[int, int], around: list[int]) -> int:
    """How many values a node stands for, with its aliases written out.

    Args:
        node: of a composed document.
        known: the numbers of nodes that were counted, by their identity.
        around: the identities of the nodes that this one is in.

    Raises:
        _Refused: more than MOST, a tag, a long number, or an alias of what it is in.
    """
    if id(node) in around:
        raise _Refused("an alias (*name) repeats what it is in", node.start_mark.line)
    if id(node) not in known:
        if str(node.tag) not in TAGS:
            raise _Refused("a tag (!name) is not accepted; it takes sections, lists, numbers and texts", node.start_mark.line)
        if node.id == "scalar" and len(node.value) > DIGITS and str(node.tag).endswith(("int", "float")):
            raise _Refused(f"a number has more than {DIGITS} digits", node.start_mark.line)
        parts = [one for pair in node.value for one in pair] if node.id == "mapping" else node.value if node.id == "sequence" else []
        known[id(node)] = 1 + sum(_count(part, known, [*around, id(node)]) for part in parts)
    if known[id(node)] > MOST:
        raise _Refused(f"more than {MOST:,} values, each alias (*name) written out", node.start_mark.line)
    return known[id(node)]
