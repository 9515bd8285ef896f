"""Lists and tables that name images: CSV or text files as people and spreadsheets write them."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from lethe._util.errors import UserError
from lethe._util.files import irregular, write_text
from lethe._util.log import log
from lethe._util.names import is_whole_number

TAKES_IDS = "it takes a CSV with a column id, or a text file with one id per line"
ID = "id"
PATHS = ("path", "file_name", "filename", "file", "image", "image_path", "filepath")
ROW_NUMBERS = ("row", "rows", "row_number", "index", "idx")  # columns of positions among the train images, from 0
DELIMITERS = ",;\t|"
BROKEN_JSON = re.compile(r"""\s*\[\s*(["'{\[\]]|$)""")  # if it is not JSON; [1].png may be an image
BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
Row: TypeAlias = tuple[dict[str, str], int]  # column -> value, and its line


@dataclass(frozen=True)
class IdTable:
    """A file that names images.

    Args:
        key: the key that names the file, and the file, for messages.
        column: the column that names the images.
        rows: of each image its columns and its line, from 1.
    """

    key: str
    column: str
    rows: tuple[Row, ...]

    @property
    def names(self) -> Iterator[tuple[str, int]]:
        """Each image's name and line."""
        return ((columns.get(self.column, ""), line) for columns, line in self.rows)

    @property
    def has_row_numbers(self) -> bool:
        """Whether images are named by their position among the train images."""
        return self.column.lower() in ROW_NUMBERS and all(is_whole_number(name) for name, _ in self.names)


def read(path: Path, key: str, column: str | None = None, *, accepts: str = TAKES_IDS, header: bool = False) -> IdTable:
    """Read a list or table.

    A file whose first line has the column is a CSV, separated by commas, semicolons, tabs or |. Without a column, one called id is looked
    for, then one of paths, then one of row numbers; a file with none of them is a list of one id per line. Lines that begin with # and a
    space are comments, in a CSV before its header only. A list may be JSON: of names, of objects, or an object per line.

    Args:
        path: the file, in UTF-8, UTF-16 with a byte-order mark, or Windows-1252.
        key: the key that names it, for messages.
        column: the column that names the images; None: id.
        accepts: the end of messages.
        header: whether the first line must have columns.

    Returns:
        The table.

    Raises:
        UserError: the file can't be read as text, or lacks the column.
    """
    key = f"{key} is {path}"
    text = _text(path, key, accepts)
    if not header and (objects := _json(text, key, accepts)) is not None:
        return _of_objects(objects, key, column, accepts)
    text = _without_comments(text, key)
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    if len(max(lines, key=len, default="")) > csv.field_size_limit():
        raise UserError(f"{key} (a line has more than {csv.field_size_limit():,} characters); {accepts}")
    for delimiter in DELIMITERS:
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        found = _column(names, column)
        if found is not None:
            return IdTable(key, names[found], tuple(_rows(text, names, delimiter, key, accepts)))
    if column is not None or header:
        raise UserError(f"{key} (no column {column or ID} in its first line: {first[:80]}){_near(column or ID, first)}; {accepts}")
    return IdTable(key, ID, tuple(({ID: line.strip()}, number) for number, line in enumerate(lines, 1) if line.strip()))


def drop_rows(path: Path, dropped: Callable[[str], bool]) -> int:
    """Write a table again without some of its rows; the others and the separator stay as they are, the text becomes UTF-8.

    Args:
        path: the file, as `read` takes it.
        dropped: whether the row of an image of this name is left out.

    Returns:
        The number of rows that were left out. Without any the file is not written.

    Raises:
        UserError: as `read`.
        RunFailed: the file could not be written.
    """
    table, text = read(path, "the table"), _text(path, "the table", TAKES_IDS)
    if not any(dropped(name) for name, _ in table.names):
        return 0
    first = next((line for line in _without_comments(text).splitlines() if line.strip()), "")
    delimiter = next(
        (one for one in DELIMITERS if _column([name.strip() for name in next(csv.reader([first], delimiter=one))], None) is not None), ","
    )
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    at = names.index(table.column) if table.column in names else 0
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    kept = [row for row in rows if not (len(row) > at and dropped(row[at].strip()))]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n" if "\r\n" in text else "\n").writerows(kept)
    write_text(path, out.getvalue())
    return len(rows) - len(kept)


def _column(names: list[str], column: str | None) -> int | None:
    """Number of the column that names the images. A name is also found in other upper and lower case, as spreadsheets write it."""
    if column is not None:
        lower = [name.lower() for name in names]
        return names.index(column) if column in names else lower.index(column.lower()) if column.lower() in lower else None
    lower = [name.lower() for name in names]
    return next((lower.index(name) for name in (ID, *PATHS, *ROW_NUMBERS) if name in lower), None)


def _json(text: str, key: str, accepts: str) -> list[object] | None:
    """The entries of a JSON list, or of JSON lines; None for other text."""
    start = text.lstrip()[:1]
    if start not in ("[", "{") or not start:
        return None
    for read in (json.loads, lambda whole: [json.loads(line) for line in whole.splitlines() if line.strip()]):
        with suppress(ValueError):
            found = read(text)
            return found if isinstance(found, list) else [found]
    if BROKEN_JSON.match(text):
        raise UserError(f"{key} (it begins with [ and is no JSON); {accepts}")
    return None


def _of_objects(entries: list[object], key: str, column: str | None, accepts: str) -> IdTable:
    """The table of JSON entries, which have their position for a line."""
    if len(entries) == 1 and isinstance(entries[0], dict):  # {"ids": [...]}
        lists = [value for value in entries[0].values() if isinstance(value, list)]
        entries = lists[0] if len(lists) == 1 else entries
    if all(isinstance(entry, str | int) for entry in entries):
        entries = [{column or ID: entry} for entry in entries]
    if not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{key} (JSON that is no list of names or of objects); {accepts}")
    rows = [{str(name): str(value).strip() for name, value in entry.items()} for entry in entries if isinstance(entry, dict)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = _column(names, column)
    if found is None and rows:
        raise UserError(f"{key} (JSON whose objects have no {column or ID}: {', '.join(names)[:80]}); {accepts}")
    return IdTable(key, ID if found is None else names[found], tuple((row, number) for number, row in enumerate(rows, 1)))


def _without_comments(text: str, key: str = "") -> str:
    """The text with empty lines in place of comments, and of Excel's `sep=;`; comments are logged where there is a key to name.

    A comment begins with # and a space: #1.png may be an image."""
    lines = text.splitlines(keepends=True)
    comments = [number for number, line in enumerate(lines) if re.match(r"\s*#+\s", line)]
    first = next((number for number, line in enumerate(lines) if line.strip() and number not in comments), len(lines))
    if first < len(lines) and re.fullmatch(r"sep=.", lines[first].strip()):
        lines[first], first = "\n", first + 1
    header = lines[first] if first < len(lines) else ""
    if any(_column([name.strip() for name in next(csv.reader([header], delimiter=one), [])], None) is not None for one in DELIMITERS):
        comments = [number for number in comments if number < first]
    if comments and key:
        log(f"{key}: lines that begin with # are comments: {len(comments)}, the first is line {comments[0] + 1}")
    left = {*comments}
    return "".join("\n" if number in left else line for number, line in enumerate(lines))


def _rows(text: str, names: list[str], delimiter: str, key: str, accepts: str) -> Iterator[Row]:
    if len(names) == 1:  # a comma in a line belongs to the id, unless the line is quoted
        lines = ((line.strip(), number) for number, line in enumerate(text.splitlines(), 1) if line.strip())
        next(lines)
        yield from (({names[0]: next(csv.reader([line]))[0] if line.startswith('"') else line}, number) for line, number in lines)
        return
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        while not any(next(rows)):
            pass
        for row in rows:
            if any(row):
                yield dict(zip(names, (value.strip() for value in row), strict=False)), rows.line_num
    except csv.Error as error:
        raise UserError(f"{key} ({error}); {accepts}") from None


def _text(path: Path, key: str, accepts: str) -> str:
    try:
        if what := irregular(path):
            raise UserError(f"{key} ({what}); {accepts}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{key} (no such file); {accepts}") from None
    except OSError as error:
        raise UserError(f"{key} ({error.strerror}); {accepts}") from None
    if content.startswith(b"PK"):
        raise UserError(f"{key} (an Excel workbook or a zip file; save it as CSV); {accepts}")
    encoding = next((name for mark, name in BOMS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        if b"\0" in content:
            raise UserError(f"{key} (not text in UTF-8, UTF-16 or Windows-1252: it has zero bytes); {accepts}") from None
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise UserError(f"{key} (not text in UTF-8, UTF-16 or Windows-1252); {accepts}") from None
        log(f"{key}: it is not UTF-8, so it is read as Windows-1252")
    if "\0" in text:
        raise UserError(f"{key} (not text in UTF-8, UTF-16 or Windows-1252: it has zero bytes); {accepts}")
    return text


def _near(column: str, first: str) -> str:
    names = [name.strip() for delimiter in DELIMITERS for name in first.split(delimiter)]
    near = get_close_matches(column, names, 1)
    return f"; nearest: {near[0]}" if near else ""
