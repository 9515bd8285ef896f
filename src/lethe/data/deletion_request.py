"""Deletion requests: which train images to forget, given as a fraction, a number, classes, or a file of ids."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.data import id_table
from lethe.data.id_lookup import IdLookup, nearest
from lethe.data.id_table import TAKES_IDS
from lethe.data.images import Images
from lethe.data.request import DeletionRequest

Indices = npt.NDArray[np.int64]

IDS = "data.forget.ids"
METADATA = "data.metadata"
MOST_NAMED = 4  # unknown ids after the first that a message names
TAKES_METADATA = "it takes a CSV with a column id, or one that data.forget.column names, and others"


def forget_count(request: DeletionRequest, n: int) -> int:
    """Return the number of train images that a request by fraction or count asks for.

    Args:
        request: has a fraction or a count.
        n: number of train images.

    Returns:
        The number, from 1 to n - 1.

    Raises:
        UserError: the number is not from 1 to n - 1, or the fraction not between 0 and 1.
    """
    if request.count is not None:
        if not 1 <= request.count < n:
            raise UserError(f"data.forget.count is {request.count}; it takes 1 to {n - 1}, of {n} train images")
        return request.count
    assert request.fraction is not None
    if not 0 < request.fraction < 1:  # also refuses nan
        raise UserError(f"data.forget.fraction is {request.fraction}; it takes a number > 0 and < 1")
    forget = round(request.fraction * n)
    if not 1 <= forget < n:
        what = f"{'none' if forget == 0 else 'all'} of {n} train images"
        raise UserError(f"data.forget.fraction is {request.fraction} ({what}); some must be forgotten and some retained")
    return forget


def of_classes(images: Images, classes: Sequence[str] | None) -> Indices:
    """Find all train images of some classes.

    Args:
        images: all images, train first.
        classes: names of the classes.

    Returns:
        int64 indices into `images`, ascending.

    Raises:
        UserError: a class does not exist, or none is named.
    """
    if not classes:
        raise UserError(f"data.forget.classes is empty; it takes one or more of {_some(images.classes)}")
    for name in classes:
        if name not in images.classes:
            quoted = next((f"; a name with a comma is quoted: '\"{each}\"'" for each in images.classes if "," in each), "")
            raise UserError(
                f"data.forget.classes names {name} (no such class{nearest(name, images.classes)}{quoted}); "
                f"it takes one or more of {_some(images.classes)}"
            )
    wanted = [images.classes.index(name) for name in classes]
    return np.flatnonzero(np.isin(images.labels[: images.train], wanted))


def count_ids(request: DeletionRequest) -> int:
    """Number of images that a list or a metadata table asks for, whether or not they exist."""
    if request.ids is not None:
        return len({name for name, _ in id_table.read(request.ids, IDS, request.column).names})
    return sum(1 for _ in _matching_rows(request))


def of_ids(images: Images, request: DeletionRequest) -> Indices:
    """Find the train images that a list names. What is not plain about it is logged: spellings, row numbers, names that are in it twice.

    Args:
        images: all images, train first.
        request: has a list: a CSV with a column of ids, or a text file with one id per line.

    Returns:
        int64 indices into `images`, in the order of the file.

    Raises:
        UserError: the file can't be read, has no ids, or has an empty, unknown, ambiguous or held-out one; the message names its line.
    """
    assert request.ids is not None
    table = id_table.read(request.ids, IDS, request.column)
    lookup = IdLookup(images, request.root)
    wanted = _row_numbers(images, table, request) if table.has_row_numbers else _found(images, lookup, table)
    held_out = [(i, line) for i, line in wanted if i >= images.train]
    if held_out:
        i, line = held_out[0]
        raise UserError(
            f"{table.key} ({len(held_out)} of {len(wanted)} ids are of held-out images, first {images.ids[i]}, line {line}); "
            "it takes only train images, because no model was trained on the others"
        )
    _log_spelling(table, lookup)
    return _once(wanted, images, table.key)


def of_where(images: Images, request: DeletionRequest) -> Indices:
    """Find the train images whose row in the metadata table has the wanted values. Held-out images among them are logged.

    Args:
        images: all images, train first.
        request: has conditions and a metadata table.

    Returns:
        int64 indices into `images`, in the order of the table.

    Raises:
        UserError: there is no table or column, no row has the values, or a row that has them names no image, or none of train.
    """
    assert request.where is not None
    asked = f"data.forget.where is {','.join(request.where)}"
    rows = list(_matching_rows(request))
    assert request.metadata is not None
    table = id_table.read(request.metadata, METADATA, request.column, accepts=TAKES_METADATA, header=True)
    lookup = IdLookup(images, request.root)
    wanted = _found(images, lookup, replace(table, rows=tuple(rows)))
    train = [(i, line) for i, line in wanted if i < images.train]
    if not train:
        raise UserError(f"{asked}: all {len(wanted)} images with it are held-out images, which no model was trained on")
    if len(train) < len(wanted):
        log(f"{asked}: {len(wanted) - len(train)} of {len(wanted)} images with it are held-out images; no model was trained on them")
    _log_spelling(table, lookup)
    return _once(train, images, asked)


def _matching_rows(request: DeletionRequest) -> Iterator[id_table.Row]:
    """The rows of the metadata table that have, of each named column, one of its values."""
    asked = f"data.forget.where is {','.join(request.where or ())}"
    if request.metadata is None:
        raise UserError(f"{asked}, and there is no table of properties: data.metadata is null, and data.root has no metadata.csv")
    table = id_table.read(request.metadata, METADATA, request.column, accepts=TAKES_METADATA, header=True)
    columns = list(dict.fromkeys(name for row, _ in table.rows for name in row))
    values: dict[str, set[str]] = {}
    for condition in request.where or ():
        name, equals, value = (part.strip() for part in condition.partition("="))
        if not equals:
            raise UserError(f"data.forget.where is {condition}; it takes column=value")
        if name not in columns:
            raise UserError(f"{asked} ({request.metadata} has no column {name}{nearest(name, columns)}); it has {_some(columns)}")
        values.setdefault(name, set()).add(value)
    found = False
    for row, line in table.rows:
        if all(row.get(name) in wanted for name, wanted in values.items()):
            found = True
            yield row, line
    if not found:
        name, wanted = next(iter(values.items()))
        near = nearest(next(iter(wanted)), [*dict.fromkeys(row.get(name, "") for row, _ in table.rows)])
        raise UserError(f"{asked} (no row of {request.metadata} has that{near}); it takes values of its columns")


def _found(images: Images, lookup: IdLookup, table: id_table.IdTable) -> list[tuple[int, int]]:
    """Index and line of each name in a table. Raises UserError for the first that is empty, unknown or ambiguous."""
    wanted: list[tuple[int, int]] = []
    unknown: list[tuple[str, int]] = []
    names = list(table.names)
    for name, line in names:
        if not name:
            raise UserError(f"{table.key} (line {line} has no id); {TAKES_IDS}")
        found = lookup.find(name)
        if len(found) == 1:
            wanted.append((found[0], line))
        else:
            unknown.append((name, line))
    if not names:
        raise UserError(f"{table.key} (no ids in it); {TAKES_IDS}")
    if unknown:
        name, line = unknown[0]
        if (name, line) == names[0] and table.column == id_table.ID and any(one in name for one in id_table.DELIMITERS):
            raise UserError(f"{table.key} (its first line, {name[:80]}, has no column id; data.forget.column names another); {TAKES_IDS}")
        different = len({name for name, _ in names})
        count = f"{len({name for name, _ in unknown})} of {different} ids unknown"
        others = list(dict.fromkeys(other for other in unknown if other[0] != name))
        more = "".join(f"; {other}, line {at}{lookup.hint(other)}" for other, at in others[:MOST_NAMED])
        more += f"; and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        raise UserError(f"{table.key} ({count}, first {name}, line {line}{lookup.hint(name)}{more}); {TAKES_IDS}")
    return wanted


def _row_numbers(images: Images, table: id_table.IdTable, request: DeletionRequest) -> list[tuple[int, int]]:
    """Index and line of each position among the train images."""
    if request.limit is not None:
        raise UserError(f"{table.key} (row numbers, column {table.column}); with data.limit {request.limit} it takes ids")
    wanted = [(int(name), line) for name, line in table.names]
    if not wanted:
        raise UserError(f"{table.key} (no ids in it); {TAKES_IDS}")
    for number, line in wanted:
        if number >= images.train:
            raise UserError(f"{table.key} (line {line}: row {number}); it takes rows 0 to {images.train - 1} of the train images")
    first = wanted[0][0]
    log(f"{table.key}: its column {table.column} has row numbers of train images, from 0, in their order: {first} is {images.ids[first]}")
    return wanted


def _once(wanted: list[tuple[int, int]], images: Images, key: str) -> Indices:
    """The images, each once, in the order of their lines."""
    lines: dict[int, int] = {}
    again: list[tuple[int, int]] = []
    for i, line in wanted:
        if i in lines:
            again.append((i, line))
        else:
            lines[i] = line
    if again:
        i, line = again[0]
        log(f"{key}: {len(again)} of {len(wanted)} lines repeat an image, first {images.ids[i]}, line {lines[i]} and again line {line}")
    return np.array([*lines], np.int64)


def _log_spelling(table: id_table.IdTable, lookup: IdLookup) -> None:
    if differences := lookup.differences():
        log(f"{table.key}: {differences}")


def _some(words: Sequence[str]) -> str:
    return ", ".join(words) if len(words) <= 20 else f"{', '.join(words[:20])}, ... ({len(words)} in all)"
