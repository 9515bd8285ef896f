"""Deletion requests: which train images to forget, given as a fraction, a number, classes, or a file of ids."""

import csv
import difflib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lethe._util.errors import UserError
from lethe.data.images import Images

Indices = npt.NDArray[np.int64]

TAKES_IDS = "it takes a CSV with a column id, or a text file with one id per line"


@dataclass(frozen=True)
class DeletionRequest:
    """What to forget. Exactly one field is set: a fraction or number of train images, whole classes, or a file of ids."""

    fraction: float | None = None
    count: int | None = None
    classes: tuple[str, ...] | None = None
    ids: Path | None = None


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
            raise UserError(
                f"data.forget.classes names {name} (no such class{nearest(name, images.classes)}); "
                f"it takes one or more of {_some(images.classes)}"
            )
    wanted = [images.classes.index(name) for name in classes]
    return np.flatnonzero(np.isin(images.labels[: images.train], wanted))


def count_ids(path: Path) -> int:
    """Number of ids in a file of ids, whether or not such images exist."""
    return sum(1 for _ in _ids_in(path, f"data.forget.ids is {path}"))


def of_ids(images: Images, path: Path) -> Indices:
    """Find the train images that a file names.

    Args:
        images: all images, train first.
        path: a CSV with a column id, or a text file with one id per line.

    Returns:
        int64 indices into `images`, in the order of the file.

    Raises:
        UserError: the file can't be read, has no ids, or has an empty, repeated, unknown or held-out id; the message names its line.
    """
    key = f"data.forget.ids is {path}"
    index = {id_: i for i, id_ in enumerate(images.ids)}
    found: dict[str, int] = {}  # id -> its line
    unknown: list[tuple[str, int]] = []
    held_out: list[tuple[str, int]] = []
    for id_, line in _ids_in(path, key):
        if not id_:
            raise UserError(f"{key} (line {line} has no id); {TAKES_IDS}")
        if id_ in found:
            raise UserError(f"{key} ({id_} is on line {found[id_]} and again on line {line}); it takes each id once")
        found[id_] = line
        if id_ not in index:
            unknown.append((id_, line))
        elif index[id_] >= images.train:
            held_out.append((id_, line))
    if not found:
        raise UserError(f"{key} (no ids in it); {TAKES_IDS}")
    if unknown:
        id_, line = unknown[0]
        near = nearest(id_, images.ids) or f"; ids here look like {images.ids[0]}"
        raise UserError(f"{key} ({len(unknown)} of {len(found)} ids unknown, first {id_}, line {line}{near}); {TAKES_IDS}")
    if held_out:
        id_, line = held_out[0]
        raise UserError(
            f"{key} ({len(held_out)} of {len(found)} ids are of held-out images, first {id_}, line {line}); "
            "it takes only train images, because no model was trained on the others"
        )
    return np.array([index[id_] for id_ in found], np.int64)


def _ids_in(path: Path, key: str) -> Iterator[tuple[str, int]]:
    """Each id and its line number. A file whose first line has a column `id` is a CSV, separated by commas, semicolons or tabs."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # -sig: Excel writes a byte-order mark
    except FileNotFoundError:
        raise UserError(f"{key} (no such file); {TAKES_IDS}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f"{key} ({reason}); {TAKES_IDS}") from None
    for delimiter in ",;\t":
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
            if "id" in header:
                column = header.index("id")
                for row in rows:
                    if any(row):
                        yield row[column].strip() if column < len(row) else "", rows.line_num
                return
        except csv.Error as error:
            raise UserError(f"{key} ({error}); {TAKES_IDS}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield line.strip(), number


def nearest(word: str, words: Sequence[str]) -> str:
    """Name the most similar word, for an error message.

    Args:
        word: the word that is wrong.
        words: those that exist.

    Returns:
        "; nearest: ..."; "" if no word is similar, or if there are 200,000 or more, which would take too long to compare.
    """
    near = difflib.get_close_matches(word, words, 1) if len(words) < 200_000 else []  # takes 1-2 s for 60,000 ids
    return f"; nearest: {near[0]}" if near else ""


def _some(words: Sequence[str]) -> str:
    return ", ".join(words) if len(words) <= 20 else f"{', '.join(words[:20])}, ... ({len(words)} in all)"
