"""What a key takes, in words, from its annotation: the one source of --help, docs/keys.md and error messages."""

import csv
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from lethe._util.checkout import command
from lethe._util.errors import UserError
from lethe._util.names import nearest


def accepts(info: FieldInfo) -> str:
    """What a key takes: type, range, whether null.

    >>> accepts(FieldInfo.from_annotation(Annotated[int, FieldInfo(ge=0)]))
    'an integer >= 0'
    """
    types, marks = _unfold(info.annotation, list(info.metadata))
    words = " or ".join(dict.fromkeys(_words(kind, marks) for kind in types if kind is not NoneType))
    return words + (" or null" if NoneType in types else "")


def unknown_method(method: str, known: Iterable[str], place: str = "command line", also: str = "") -> UserError:
    """Make the error of a method that does not exist.

    Args:
        method: as it was given.
        known: names that are accepted.
        place: where it was given.
        also: what is accepted besides; ends the message.

    Returns:
        The error, which names the nearest method; the caller raises it.
    """
    described = f"`{command('unlearn', '--list')}` describes all"
    return UserError(f"method {show(method)} is unknown ({place}); nearest: {nearest(method, known)}; {described}{also}")


def types_of(info: FieldInfo) -> list[Any]:
    """The types of a key's values, unions taken apart."""
    return _unfold(info.annotation, [])[0]


def is_list_of_names(info: FieldInfo) -> bool:
    """Whether a key takes names, as a,b."""
    return any(get_origin(kind) is tuple and Ellipsis in get_args(kind) for kind in types_of(info))


def names_of(value: Any) -> Any:
    """Names from a text `a,b`, from one name alone, or from a list; numbers become texts."""
    value = split(value)
    if isinstance(value, list | tuple):
        return tuple(_text(each) for each in value)
    return (_text(value),) if _is_number(value) else value


def split(value: Any) -> Any:
    """Divide a text at its commas: `a,b`, `"a, with a comma",b` or `["a", "b"]`; other values are as they are.

    >>> split("a, b"), split('"tench, Tinca tinca",b'), split('["a", "b"]'), split(3)
    (('a', 'b'), ('tench, Tinca tinca', 'b'), ('a', 'b'), 3)
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        with suppress(ValueError):
            return tuple(json.loads(value))
    parts = next(csv.reader([" ".join(value.splitlines())], skipinitialspace=True), []) if '"' in value else value.split(",")
    return tuple(part.strip() for part in parts if part.strip())


def _quoted(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if "," in text or text.startswith(('"', "[")) else text


def _text(value: Any) -> Any:
    return str(value) if _is_number(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def show(value: Any) -> str:
    """A value as one would type it.

    >>> show(("cat", "dog")), show(None), show("")
    ('cat,dog', 'null', "''")
    """
    if isinstance(value, list | tuple):
        return ",".join(map(_quoted, value)) or "[]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value) or "''"


def _unfold(annotation: Any, marks: list[Any]) -> tuple[list[Any], list[Any]]:
    """The types in an annotation, and its constraints (bounds, patterns)."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        parts = [_unfold(part, []) for part in get_args(annotation)]
        return [kind for types, _ in parts for kind in types], marks + [mark for _, more in parts for mark in more]
    if origin is Annotated:
        inner, *more = get_args(annotation)
        for one in more:
            marks = marks + (list(one.metadata) if isinstance(one, FieldInfo) else [one])
        return _unfold(inner, marks)
    return [annotation], marks


_NOUNS = {int: "an integer", float: "a number", bool: "true or false", Path: "a path", str: "text"}
_BOUNDS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


def _examples(kind: Any) -> tuple[str, ...]:
    """Names that a list takes, where its annotation has examples."""
    return next((tuple(mark.examples) for mark in get_args(kind) if isinstance(mark, FieldInfo) and mark.examples), ())


def _words(kind: Any, marks: list[Any]) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if Ellipsis in inner:
            return f"names, as {','.join(_examples(inner[0]) or ('a', 'b'))}"
        return f"{len(inner)} numbers{' > 0' if inner[0] is not float else ''}, as 0.5,0.5,0.5"
    if get_origin(kind) is dict:
        return "arguments with values, as {shape: [power]}"
    noun = _NOUNS[kind]
    if kind in (int, float):
        found = [(word, getattr(mark, name, None)) for mark in marks for name, word in _BOUNDS]
        bounds = [f"{word} {bound if isinstance(bound, int) else format(bound, 'g')}" for word, bound in found if bound is not None]
        return " ".join([noun, " and ".join(bounds)]).strip()
    pattern = next((mark.pattern for mark in marks if getattr(mark, "pattern", None)), "")
    return "auto, cpu, mps, cuda or cuda:<n>" if pattern.startswith("^(auto|cpu") else noun
